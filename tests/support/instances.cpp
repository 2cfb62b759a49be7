#include "support/instances.hpp"

#include <mailroom/journal.hpp>

namespace mailroom::detail {

template class log_engine<posix_files>;
template class log_engine<testing::simulated_files>;
template class memory_core<int>;
template class memory_core<std::string>;
template class topic_core<int>;
template class topic_core<std::string>;
template class partition<int>;
template class partition<std::string>;
template class group<int>;
template class group<std::string>;
template class tap<int>;
template class tap<std::string>;
template class journal_link<int>;
template class journal_link<std::string>;
template class journal_archive<int>;
template class journal_archive<std::string>;

} // namespace mailroom::detail
