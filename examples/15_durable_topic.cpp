// A topic on disk: subscribers with a name keep their place, though the program ends and another one is started; and what is retained can be
// replayed, also by somebody who was not there when it was published.
#include "support/scratch.hpp"

#include <mailroom/journal.hpp>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>

struct headline {
    int number = 0;
    std::string text;
};
using news_topic = mailroom::topic<headline, mailroom::journal>;
using mailroom::start;

int wrong = 0;

/// Reads what is there for a subscriber, `most` at most, and checks that it is `first`, `first` + 1, ... up to `last`.
void read(const char* who, mailroom::subscription<headline>& from, int first, int last, int most = 1000) {
    int number = first - 1, in_order = 0, received = 0;
    while (received < most) {
        const auto m = from.try_pop();
        if (!m) { break; }
        ++received;
        in_order += m->body().number == ++number ? 1 : 0;
    }
    const bool as_expected = received == last - first + 1 && in_order == received;
    std::printf("  %-28s %2d headlines, %d to %d%s\n", who, received, first, number, as_expected ? "" : "   NOT AS EXPECTED");
    wrong += as_expected ? 0 : 1;
}

/// Stands for a run of the program: the journal is opened, and closed at the end.
template <class Fn>
void session(const char* what, const std::filesystem::path& data, Fn fn) {
    std::printf("%s\n", what);
    mailroom::journal disk{data};
    // The last 20 stay, whoever has read them; besides, what a subscription with a name has still to read. Retention is no part of the files: who
    // opens the topic says it.
    news_topic news{disk, "news", {.retention = {.messages = 20}}};
    fn(news);
    for (const auto& s : news.subscriptions()) { std::printf("  \"%s\" has %ju headlines to read\n", s.name.c_str(), std::uintmax_t(s.lag)); }
}

int main(int argc, char** argv) {
    const scratch::directory home(argc, argv);
    const auto data = home.path() / "news";
    int published = 0;
    const auto publish = [&](news_topic& to, int n) {
        while (n-- > 0) {
            ++published;
            to.publish({published, "headline " + std::to_string(published)}, {.subject = published % 10 == 0 ? "sport" : "world"});
        }
    };

    session("monday: the archive is there", data, [&](news_topic& news) {
        auto archive = news.subscribe("archive", {.from = start::earliest});
        publish(news, 10);
        read("the archive reads", archive, 1, 4, 4);
    });
    session("tuesday: the archive is away", data, [&](news_topic& news) {
        publish(news, 40); // one after the other, each on disk before the next
    });
    session("wednesday: the archive is back", data, [&](news_topic& news) {
        auto archive = news.subscribe("archive"); // goes on behind the last it has read
        read("the archive reads", archive, 5, 50);
        auto student = news.subscribe({.from = start::earliest}); // without a name: of this run only
        read("a student reads what is kept", student, 31, 50);
        publish(news, 5);
        read("and what comes", student, 51, 55);
    });
    session("thursday: the archive has burnt down", data, [&](news_topic& news) {
        auto archive = news.subscribe("archive");
        read("the archive reads", archive, 51, 55);
        archive.seek(start::earliest);
        read("from the beginning", archive, 36, 55);
        archive.seek(mailroom::position{0, news.next_offset() - 3});
        read("the last three once more", archive, 53, 55);
    });
    std::printf("%d published, not as expected: %d\n", published, wrong);
    return wrong == 0 && published == 55 ? 0 : 1;
}
