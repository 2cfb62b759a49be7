// Messages that outlive the program that wrote them are read by its successors, whose types have changed. An aggregate needs no code to be
// stored; a field added at its end takes its default; any other change gets a new version of the type, and a function that makes the new of
// the old. What cannot be read is refused when the queue is opened, with a sentence, before anything happens to it.
//
// Three years of one program, in one file: each namespace is what the source said in that year.
#include "support/scratch.hpp"

#include <mailroom/journal.hpp>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#if __has_include(<boost/json/src.hpp>) && __has_include(<boost/describe.hpp>)
# define EXAMPLE_HAS_JSON 1
# include <mailroom/json.hpp>

# include <boost/describe.hpp>
# include <boost/json/src.hpp> // once in a program that does not link libboost_json
#endif

namespace year_1 {
struct order {
    int id = 0;
    std::string what;
    std::vector<std::string> remarks;
};
} // namespace year_1

namespace year_2 {
struct order {
    int id = 0;
    std::string what;
    std::vector<std::string> remarks;
    double pounds = 1; // new, at the end: nothing else to do
};
} // namespace year_2

namespace year_3 {
struct order {
    int id = 0;
    std::string article, customer; // `what` was both, "tea for Ann"
    std::int64_t grams = 0;
};
} // namespace year_3

// What the type is called on disk, whatever the namespace: to be given once, and kept.
template <>
struct mailroom::type_name<year_1::order> {
    static constexpr std::string_view value = "shop.order";
};
template <>
struct mailroom::type_name<year_2::order> : mailroom::type_name<year_1::order> {};
template <>
struct mailroom::type_name<year_3::order> : mailroom::type_name<year_1::order> {};

// In year 3: a new version, which type it was before, and how one becomes the other.
template <>
inline constexpr std::uint32_t mailroom::type_version<year_3::order> = 2;
template <>
struct mailroom::older<year_3::order> {
    using type = year_2::order;
};
template <>
struct mailroom::upcast<year_2::order, year_3::order> {
    static year_3::order convert(year_2::order&& old) {
        const auto at = old.what.find(" for ");
        return {old.id, old.what.substr(0, at), at != std::string::npos ? old.what.substr(at + 5) : "", std::int64_t(old.pounds * 453.59237)};
    }
};

#ifdef EXAMPLE_HAS_JSON
// Stored as JSON: larger and slower, and anybody can read it; missing fields are for Boost.JSON to judge.
struct complaint {
    int order = 0;
    std::string text;
};
BOOST_DESCRIBE_STRUCT(complaint, (), (order, text))
template <>
struct mailroom::codec<complaint> : mailroom::json_codec<complaint> {};
#endif

template <class T>
using kept = mailroom::queue<T, mailroom::journal>;

int main(int argc, char** argv) {
    const scratch::directory home(argc, argv);
    const auto data = home.path() / "shop";
    int wrong = 0;
    const auto expect = [&](bool holds) { wrong += holds ? 0 : 1; };

    {
        mailroom::journal disk{data};
        kept<year_1::order> orders{disk, "orders"};
        orders.send({1, "tea for Ann", {"loose"}});
        orders.send({2, "ink for Bob", {}});
        std::printf("year 1: 2 orders sent, none handled\n");
    }
    {
        mailroom::journal disk{data};
        kept<year_2::order> orders{disk, "orders"};
        orders.send({3, "flour for Cem", {}, 2.5});
        auto first = orders.receive();
        std::printf("year 2: order %d, %s, %zu remark(s), %g pound(s): that is the default\n", first->body().id, first->body().what.c_str(),
                    first->body().remarks.size(), first->body().pounds);
        expect(first->body().id == 1 && first->body().remarks.size() == 1 && first->body().pounds == 1);
        first->ack();
    }
    {
        mailroom::journal disk{data};
        kept<year_3::order> orders{disk, "orders"};
        orders.send({4, "paper", "Dee", 80});
        std::int64_t grams = 0;
        for (int id = 2; id <= 3; ++id) {
            const auto o = orders.pop();
            std::printf("year 3: order %d: %jd g of %s for %s\n", o->body().id, std::intmax_t(o->body().grams), o->body().article.c_str(),
                        o->body().customer.c_str());
            grams += o->body().grams;
            expect(o->body().id == id && o->body().customer == (id == 2 ? "Bob" : "Cem"));
        }
        expect(grams == 453 + 1133);
    }
    // Somebody starts the program of year 2 again.
    try {
        mailroom::journal disk{data};
        kept<year_2::order> orders{disk, "orders"};
        std::printf("the program of year 2 reads what year 3 wrote!\n");
        expect(false);
    } catch (const mailroom::error& e) {
        std::printf("year 2 again: %s\n", e.what());
        expect(e.code() == mailroom::errc::type_mismatch);
    }
    {
        mailroom::journal disk{data};
        kept<year_3::order> orders{disk, "orders"};
        expect(orders.statistics().ready == 1 && orders.pop()->body().id == 4); // and nothing has happened to it
    }
#ifdef EXAMPLE_HAS_JSON
    {
        mailroom::journal disk{data};
        kept<complaint> complaints{disk, "complaints"};
        complaints.send({3, "The flour is \"off\"."}, {.key = "Cem"});
    }
    {
        mailroom::journal disk{data};
        kept<complaint> complaints{disk, "complaints"};
        auto c = complaints.receive();
        std::printf("as JSON: order %d: %s\n", c->body().order, c->body().text.c_str());
        expect(c->body().text == "The flour is \"off\".");
        c->release(); // it stays there, for mailroom_journal to show
    }
#endif
    std::printf("not as expected: %d\n", wrong);
    return wrong == 0 ? 0 : 1;
}
