// The floors of include/mailroom, and the check itself against small bad trees.
#include "house/layers.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

using support::layers::problems;
using support::layers::tree;

namespace {

std::string text_of(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

const std::string floors = "# two floors\n"
                           "ground: base/ other/\n"
                           "faces:  queue.hpp consumer.hpp   # one room\n";

// A tree that stands, to be spoilt in one place by each case.
tree sound() {
    return {{"base/error.hpp", "#pragma once\n"},
            {"base/result.hpp", "#pragma once\n#include <mailroom/base/error.hpp>\n"},
            {"other/thing.hpp", "#pragma once\n#include <vector>\n"},
            {"consumer.hpp", "#include <mailroom/base/result.hpp>\n"},
            {"queue.hpp", "#include <mailroom/consumer.hpp>\n# include  <mailroom/other/thing.hpp>\n"}};
}

} // namespace

TEST_CASE("layers: the tree of mailroom stands") {
    const std::filesystem::path root = std::filesystem::path(MAILROOM_SOURCE_DIR) / "include" / "mailroom";
    tree headers;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root))
        if (entry.path().extension() == ".hpp") headers[entry.path().lexically_relative(root).generic_string()] = text_of(entry.path());
    for (const std::string& problem : problems(text_of(root / "LAYERS"), headers)) FAIL_CHECK(problem);
}

TEST_CASE("layers: a sound tree has no problem") {
    for (const std::string& problem : problems(floors, sound())) FAIL_CHECK(problem);
}

TEST_CASE("layers: each fault is found and named with file and line") {
    struct fault {
        const char* what;
        std::string path, text, sentence;
    };
    const fault faults[] = {
        {"an arrow that goes up", "base/error.hpp", "#pragma once\n\n#include <mailroom/queue.hpp>\n",
         "base/error.hpp:3: includes <mailroom/queue.hpp>, up from floor 'ground' to floor 'faces'"},
        {"another room of the floor", "other/thing.hpp", "#include <mailroom/base/error.hpp>\n",
         "other/thing.hpp:1: includes <mailroom/base/error.hpp>, another room of floor 'ground'"},
        {"a circle inside a room", "base/error.hpp", "#include <mailroom/base/result.hpp>\n",
         "base/result.hpp:2: closes a circle: base/error.hpp -> base/result.hpp -> base/error.hpp"},
        {"a header that includes itself", "other/thing.hpp", "#include <mailroom/other/thing.hpp>\n",
         "other/thing.hpp:1: closes a circle: other/thing.hpp -> other/thing.hpp"},
        {"a header on no floor", "attic/box.hpp", "", "attic/box.hpp:1: stands on no floor of LAYERS"},
        {"a root header on no floor", "topic.hpp", "", "topic.hpp:1: stands on no floor of LAYERS"},
        {"a header that does not exist", "queue.hpp", "#include <mailroom/base/none.hpp>\n",
         "queue.hpp:1: includes <mailroom/base/none.hpp>, which does not exist"},
        {"a relative include", "queue.hpp", "#include \"consumer.hpp\"\n",
         "queue.hpp:1: includes \"consumer.hpp\" instead of the full path <mailroom/...>"},
    };
    for (const fault& f : faults) {
        CAPTURE(f.what);
        tree bad = sound();
        bad[f.path] = f.text;
        const auto found = problems(floors, bad);
        CHECK(std::find(found.begin(), found.end(), f.sentence) != found.end());
        for (const std::string& problem : found) INFO(problem);
    }
}

TEST_CASE("layers: the file itself is checked") {
    CHECK(problems(floors + "faces base/\n", sound()).front() == "LAYERS:4: a floor is written 'name: room/ file.hpp ...'");
    CHECK(problems(floors + "up: base/\n", sound()).front() == "LAYERS:4: base/ stands on two floors");
    CHECK(problems(floors + "up: attic/\n", sound()).front() == "LAYERS: attic/ is not in the tree");
}
