// The fast lane: `transient` hands a T from thread to thread and keeps nothing. No acknowledgement, no properties, no second delivery; in
// return next to no cost. Asking it for more does not compile, and the compiler says why.
#include <mailroom/store/transient.hpp>

#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

using picture = std::unique_ptr<std::vector<int>>; // what can only be moved is fine

int main() {
    // One thread sends, one pops, 16 places: a ring. Who sends waits while it is full.
    mailroom::queue<picture, mailroom::transient<mailroom::spsc<16>>> taken;
    // Any number of threads on both ends: bounded<N> has places for N messages, transient<> grows.
    mailroom::queue<long, mailroom::transient<>> sums;

    std::thread camera([&] {
        for (int i = 1; i <= 100; ++i) { taken.send(std::make_unique<std::vector<int>>(1000, i)); }
        taken.close(); // what was sent is still popped
    });
    std::thread developer([&] {
        while (auto p = taken.pop()) {
            long sum = 0;
            for (const int pixel : **p) { sum += pixel; }
            sums.send(sum);
        }
        sums.close();
    });

    long total = 0;
    int pictures = 0;
    while (const auto sum = sums.pop()) {
        total += *sum;
        ++pictures;
    }
    camera.join();
    developer.join();
    std::printf("%d pictures, the sum of their pixels is %ld\n", pictures, total);
    return pictures == 100 && total == 5'050'000 ? 0 : 1;
}
