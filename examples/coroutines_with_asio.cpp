// A queue in a program that lives in Boost.Asio: one thread, an io_context, and coroutines that wait for messages as for any other event.
#include <mailroom/asio.hpp>
#include <mailroom/mailroom.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

using namespace std::chrono_literals;
namespace asio = boost::asio;

asio::awaitable<void> serve(asio::io_context& context, mailroom::queue<std::string>& requests) {
    // Empty once the queue is closed and nothing is left. A failed request comes again by itself: Asio's timers keep the time.
    while (auto d = co_await mailroom::async_receive(context, requests, asio::use_awaitable)) {
        if (d->attempt() == 1 && d->body() == "difficult") {
            std::printf("%s: failed\n", d->body().c_str());
            d->nack(20ms);
        } else {
            std::printf("%s: done at attempt %u\n", d->body().c_str(), d->attempt());
            d->ack();
        }
    }
    std::printf("closed\n");
}

int main() {
    asio::io_context context(1);
    mailroom::queue<std::string> requests;
    asio::co_spawn(context, serve(context, requests), asio::detached);

    std::thread outside([&] { // any thread may send; the coroutine is resumed on the context's
        for (const char* request : {"easy", "difficult", "simple"}) { requests.send(request); }
        requests.close();
    });
    context.run();
    outside.join();
    return requests.statistics().acked == 3 ? 0 : 1;
}
