// The smallest program: one thread sends, another one reads.
#include <mailroom/mailroom.hpp>

#include <cstdio>
#include <string>
#include <thread>

int main() {
    mailroom::queue<std::string> letters;
    std::thread reader([&] {
        while (auto letter = letters.pop()) { std::printf("read: %s\n", letter->body().c_str()); }
    });
    letters.send("Dear queue,");
    letters.send("this is a message.");
    letters.close(); // the reader still gets what was sent; then pop() answers with nothing, and its loop ends
    reader.join();
}
