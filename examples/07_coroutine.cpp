// Coroutines that wait for messages. No thread belongs to them: who sends resumes who waits.
#include <mailroom/mailroom.hpp>

#include <coroutine>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <utility>
#include <vector>

// The least a coroutine needs: starts at once, and is gone when it ends.
struct task {
    struct promise_type {
        task get_return_object() noexcept { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { std::terminate(); }
    };
};

using texts = mailroom::queue<std::string>;

task translate(texts& from, texts& to, mailroom::stop_token stop) {
    while (auto d = co_await from.next(stop)) {
        // Given a name first: g++ 12 destroys a braced aggregate twice when it stands inside a co_await expression.
        const mailroom::properties about{.subject = "translation"};
        co_await to.send_async("<" + d->body() + ">", about);
        d->ack();
    }
    std::printf("translator: stopped\n");
}

task print(texts& from, mailroom::executor later) {
    while (auto d = co_await from.next().on(later)) { // resumed where the program says, not inside somebody's send
        std::printf("printer: %s (%s)\n", d->body().c_str(), d->props().subject.c_str());
        d->ack();
    }
    std::printf("printer: closed, nothing left\n");
}

int main() {
    texts words, translated;
    mailroom::stop_source stop;
    std::vector<std::function<void()>> to_do; // the event loop of this program
    const auto run = [&] {
        while (!to_do.empty()) {
            const auto next = std::move(to_do.front());
            to_do.erase(to_do.begin());
            next();
        }
    };

    translate(words, translated, stop.get_token()); // both run until they have nothing to do, and return here
    print(translated, [&](std::function<void()> step) { to_do.push_back(std::move(step)); });

    words.send("good morning"); // the translator runs inside this call, up to its next co_await
    words.send("good night");
    std::printf("sent; the printer has not run yet\n");
    run();

    stop.request_stop(); // co_await answers with nothing
    words.send("nobody listens");
    translated.close();
    run();
    return words.statistics().ready == 1 && translated.statistics().acked == 2 ? 0 : 1;
}
