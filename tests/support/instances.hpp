// What most tests of the journal would instantiate each for itself: compiled once, in instances.cpp.
#pragma once

#include <mailroom/journal.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/testing/simulated_files.hpp>
#include <mailroom/topic.hpp>

#include <string>

namespace mailroom::detail {

extern template class log_engine<posix_files>;
extern template class log_engine<testing::simulated_files>;
extern template class memory_core<int>;
extern template class memory_core<std::string>;
extern template class topic_core<int>;
extern template class topic_core<std::string>;
extern template class partition<int>;
extern template class partition<std::string>;
extern template class group<int>;
extern template class group<std::string>;
extern template class tap<int>;
extern template class tap<std::string>;
extern template class journal_link<int>;
extern template class journal_link<std::string>;
extern template class journal_archive<int>;
extern template class journal_archive<std::string>;

} // namespace mailroom::detail
