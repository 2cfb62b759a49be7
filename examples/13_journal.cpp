// A queue that survives its program. What was sent and not acknowledged is there when the directory is opened again: after a return from
// main, after kill -9, after a power cut.
#include "support/scratch.hpp"

#include <mailroom/journal.hpp>

#include <cstdio>
#include <string>

int main(int argc, char** argv) {
    const scratch::directory home(argc, argv);
    const auto data = home.path() / "letters";
    {
        mailroom::journal disk{data}; // one directory, for as many queues and topics as you like
        mailroom::queue<std::string, mailroom::journal> letters{disk, "letters"};
        letters.send("Dear queue,"); // on stable storage when this returns
        letters.send("I have to close now.");
        letters.send("But I will be back.");
        letters.pop(); // the first one has been read, and is settled
    }
    mailroom::journal disk{data};
    mailroom::queue<std::string, mailroom::journal> letters{disk, "letters"};
    int found = 0;
    for (; auto letter = letters.try_pop(); ++found) { std::printf("still there: %s\n", letter->body().c_str()); }
    std::printf("3 sent, 1 read, %d still there after reopening\n", found);
    return found == 2 ? 0 : 1;
}
