// Figures of several rounds in a few numbers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace bench {

struct spread {
    double median = 0, least = 0, most = 0;
};

inline spread spread_of(std::vector<double> figures) {
    if (figures.empty()) { return {}; }
    std::sort(figures.begin(), figures.end());
    const std::size_t n = figures.size();
    return {n % 2 == 1 ? figures[n / 2] : (figures[n / 2 - 1] + figures[n / 2]) / 2, figures.front(), figures.back()};
}

/// The value below which `share` of the figures lie.
inline double percentile(std::vector<double>& figures, double share) {
    if (figures.empty()) { return 0; }
    const auto at = static_cast<std::size_t>(share * static_cast<double>(figures.size() - 1));
    std::nth_element(figures.begin(), figures.begin() + static_cast<std::ptrdiff_t>(at), figures.end());
    return figures[at];
}

/// The ratio of each round's two figures: rounds are paired, for what disturbs a round disturbs both.
inline spread paired_ratio(const std::vector<double>& ours, const std::vector<double>& theirs) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
        if (theirs[i] > 0) { ratios.push_back(ours[i] / theirs[i]); }
    }
    return spread_of(std::move(ratios));
}

/// Three digits that matter.
inline std::string short_number(double x) {
    char text[32];
    const double size = x < 0 ? -x : x;
    std::snprintf(text, sizeof text, size >= 99.95 ? "%.0f" : size >= 9.995 ? "%.1f" : "%.2f", x);
    return text;
}
inline std::string to_text(const spread& s) { return short_number(s.median) + " [" + short_number(s.least) + " - " + short_number(s.most) + "]"; }

} // namespace bench
