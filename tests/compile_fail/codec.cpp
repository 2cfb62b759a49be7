// What has no bytes of its own does not compile where bytes are needed, and the first line of the answer says what to do.
// expect: this T has no codec, and bytes are needed: specialise mailroom::codec<T>
// expect: this T has no codec, and bytes are needed: specialise mailroom::codec<T>
// expect: this T has no codec, and bytes are needed: specialise mailroom::codec<T>
// expect: this T has no codec, and bytes are needed: specialise mailroom::codec<T>
// expect: this T has no codec, and bytes are needed: specialise mailroom::codec<T>
// expect: no way: specialise mailroom::upcast<Old, New>
#include <mailroom/message/codec.hpp>
#include <mailroom/message/schema.hpp>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#if !defined(MAILROOM_FAULT)
# define MAILROOM_FAULT 0
#endif

struct order {
    int id = 0;
    std::string symbol{};
};
struct with_pointer {
    int id = 0;
    const char* symbol = nullptr;
};
struct with_view {
    std::string owned{};
    std::string_view view{};
};
struct of_nowhere {
    int id = 0;
};
struct newer {
    int id = 0;
};
#if MAILROOM_FAULT == 6
template <>
struct mailroom::older<newer> {
    using type = of_nowhere;
};
#endif

void use(mailroom::byte_sink& out) {
    mailroom::codec<order>::encode({}, out);
    static_cast<void>(mailroom::codec<order>::decode(out.bytes()));
    static_cast<void>(mailroom::detail::decoder_for<newer>(mailroom::detail::schema()));
#if MAILROOM_FAULT == 1
    mailroom::codec<with_pointer>::encode({}, out);
#elif MAILROOM_FAULT == 2
    static_cast<void>(mailroom::codec<with_view>::decode(out.bytes()));
#elif MAILROOM_FAULT == 3
    mailroom::codec<std::vector<int*>>::encode({}, out);
#elif MAILROOM_FAULT == 4
    static_cast<void>(mailroom::detail::schema_of<std::function<void()>>());
#elif MAILROOM_FAULT == 5
    static_cast<void>(mailroom::detail::decoder_for<with_pointer>(mailroom::detail::schema()));
#endif
}
