// Reads the floors of a header tree (its file LAYERS) and the includes of its headers, and tells what is wrong with them.
// Works on texts in memory, so that a bad tree is a few lines of a test.
//
// LAYERS, one floor a line, bottom first:   name: room/ room/ file.hpp ...      ('#' starts a comment)
// A header may include its own room and the floors below. The root files of one floor are one room together; two rooms
// of one floor do not know each other.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace support::layers {

using tree = std::map<std::string, std::string>; // path below include/mailroom -> text

struct place {
    std::size_t floor = 0;
    std::string room;
};

struct include {
    std::string target; // path below include/mailroom
    std::size_t line = 0;
};

struct scanned {
    std::vector<include> own;
    std::vector<std::string> problems;
};

inline scanned scan(const std::string& path, const std::string& text) {
    scanned result;
    std::istringstream in(text);
    std::string line;
    for (std::size_t number = 1; std::getline(in, line); ++number) {
        auto at = line.find_first_not_of(" \t");
        if (at == std::string::npos || line[at] != '#') continue;
        at = line.find_first_not_of(" \t", at + 1);
        if (at == std::string::npos || line.compare(at, 7, "include") != 0) continue;
        at = line.find_first_of("<\"", at + 7);
        if (at == std::string::npos) continue;
        const char close = line[at] == '<' ? '>' : '"';
        const auto end = line.find(close, at + 1);
        const std::string name = line.substr(at + 1, end == std::string::npos ? end : end - at - 1);
        const bool ours = name.rfind("mailroom/", 0) == 0;
        if (close == '"' || name.rfind("..", 0) == 0)
            result.problems.push_back(path + ":" + std::to_string(number) + ": includes \"" + name + "\" instead of the full path <mailroom/...>");
        else if (ours)
            result.own.push_back({name.substr(9), number});
    }
    return result;
}

/// Every problem of the tree, a sentence each, with file and line; empty for a tree that stands.
inline std::vector<std::string> problems(const std::string& layers, const tree& headers) {
    std::vector<std::string> found;
    std::map<std::string, place> places; // "room/" or "file.hpp" -> where
    std::vector<std::string> floors;

    std::istringstream in(layers);
    std::string line;
    for (std::size_t number = 1; std::getline(in, line); ++number) {
        line.erase(std::min(line.find('#'), line.size()));
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        const auto colon = line.find(':');
        if (colon == std::string::npos) {
            found.push_back("LAYERS:" + std::to_string(number) + ": a floor is written 'name: room/ file.hpp ...'");
            continue;
        }
        floors.push_back(line.substr(0, colon));
        std::istringstream names(line.substr(colon + 1));
        for (std::string name; names >> name;) {
            const bool room = name.back() == '/';
            const place where{floors.size() - 1, room ? name : "the root files of " + floors.back()};
            if (!places.emplace(name, where).second) found.push_back("LAYERS:" + std::to_string(number) + ": " + name + " stands on two floors");
        }
    }

    const auto find_place = [&](const std::string& path) {
        const auto slash = path.find('/');
        return places.find(slash == std::string::npos ? path : path.substr(0, slash + 1));
    };

    std::set<std::string> inhabited;
    std::map<std::string, std::vector<include>> arrows;
    for (const auto& [path, text] : headers) {
        const auto here = find_place(path);
        if (here == places.end()) {
            found.push_back(path + ":1: stands on no floor of LAYERS");
            continue;
        }
        inhabited.insert(here->first);
        scanned seen = scan(path, text);
        found.insert(found.end(), seen.problems.begin(), seen.problems.end());
        for (const include& to : seen.own) {
            const std::string where = path + ":" + std::to_string(to.line) + ": ";
            const auto there = find_place(to.target);
            if (headers.count(to.target) == 0) {
                found.push_back(where + "includes <mailroom/" + to.target + ">, which does not exist");
            } else if (there == places.end()) {
                continue; // told at the header itself
            } else if (there->second.floor > here->second.floor) {
                found.push_back(where + "includes <mailroom/" + to.target + ">, up from floor '" + floors[here->second.floor] + "' to floor '" +
                                floors[there->second.floor] + "'");
            } else if (there->second.floor == here->second.floor && there->second.room != here->second.room) {
                found.push_back(where + "includes <mailroom/" + to.target + ">, another room of floor '" + floors[here->second.floor] + "'");
            }
        }
        arrows.emplace(path, std::move(seen.own));
    }
    for (const auto& [name, where] : places)
        if (inhabited.count(name) == 0) found.push_back("LAYERS: " + name + " is not in the tree");

    // Circles: depth first; an arrow to a header that is still open closes one.
    std::map<std::string, int> state; // 1 open, 2 done
    std::vector<std::string> path;
    const std::function<void(const std::string&)> visit = [&](const std::string& name) {
        state[name] = 1;
        path.push_back(name);
        for (const include& to : arrows[name]) {
            if (headers.count(to.target) == 0) continue;
            if (state[to.target] == 1) {
                std::string circle = name + ":" + std::to_string(to.line) + ": closes a circle: ";
                auto at = path.begin();
                while (*at != to.target) ++at;
                for (; at != path.end(); ++at) circle += *at + " -> ";
                found.push_back(circle + to.target);
            } else if (state[to.target] == 0) {
                visit(to.target);
            }
        }
        path.pop_back();
        state[name] = 2;
    };
    for (const auto& [name, text] : headers)
        if (state[name] == 0) visit(name);
    return found;
}

} // namespace support::layers
