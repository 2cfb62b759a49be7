# mailroom_optional(<transient|asio> [GLOBAL]): makes the target mailroom::<name>, which is mailroom::mailroom with the
# libraries that header needs, and leaves nothing behind where they are not found. Used by this project's own build and
# by its installed package (find_package(mailroom COMPONENTS transient asio)).
#
#   transient   store/transient.hpp    moodycamel::ConcurrentQueue, Boost.Lockfree
#   asio        asio.hpp               Boost.Asio

include_guard()

set(mailroom_boost_minimum 108100)  # 1.81, as BOOST_VERSION writes it

# The folder that holds boost/, of at least the version above.
function(mailroom_find_boost result library)
    set(${result} "" PARENT_SCOPE)
    if(TARGET Boost::${library})
        set(${result} Boost::${library} PARENT_SCOPE)
        return()
    elseif(TARGET Boost::headers)
        set(${result} Boost::headers PARENT_SCOPE)
        return()
    endif()
    find_path(MAILROOM_BOOST_INCLUDE_DIR boost/version.hpp DOC "The folder that holds boost/version.hpp")
    mark_as_advanced(MAILROOM_BOOST_INCLUDE_DIR)
    if(NOT MAILROOM_BOOST_INCLUDE_DIR)
        return()
    endif()
    file(STRINGS "${MAILROOM_BOOST_INCLUDE_DIR}/boost/version.hpp" line REGEX "^#define BOOST_VERSION [0-9]+")
    string(REGEX REPLACE "^#define BOOST_VERSION ([0-9]+).*" "\\1" version "${line}")
    if(version GREATER_EQUAL mailroom_boost_minimum)
        set(${result} "${MAILROOM_BOOST_INCLUDE_DIR}" PARENT_SCOPE)
    else()
        unset(MAILROOM_BOOST_INCLUDE_DIR CACHE)  # too old: look again next time
    endif()
endfunction()

# The folder from which <concurrentqueue.h> is reached by one of the names that store/transient.hpp tries.
function(mailroom_find_moodycamel result)
    set(${result} "" PARENT_SCOPE)
    if(TARGET concurrentqueue::concurrentqueue)
        set(${result} concurrentqueue::concurrentqueue PARENT_SCOPE)
        return()
    endif()
    set(names concurrentqueue/concurrentqueue.h concurrentqueue/moodycamel/concurrentqueue.h
              moodycamel/concurrentqueue.h concurrentqueue.h)
    find_path(MAILROOM_MOODYCAMEL_INCLUDE_DIR NAMES ${names} DOC "The folder that holds moodycamel's concurrentqueue.h")
    mark_as_advanced(MAILROOM_MOODYCAMEL_INCLUDE_DIR)
    if(MAILROOM_MOODYCAMEL_INCLUDE_DIR)
        set(${result} "${MAILROOM_MOODYCAMEL_INCLUDE_DIR}" PARENT_SCOPE)
    endif()
endfunction()

function(mailroom_optional component)
    if(TARGET mailroom::${component})
        return()
    endif()
    if(component STREQUAL "transient")
        mailroom_find_boost(boost lockfree)
        mailroom_find_moodycamel(moodycamel)
        if(NOT boost OR NOT moodycamel)
            return()
        endif()
        set(needs "${boost}" "${moodycamel}")
    elseif(component STREQUAL "asio")
        mailroom_find_boost(boost asio)
        if(NOT boost)
            return()
        endif()
        set(needs "${boost}")
    else()
        return()
    endif()

    add_library(mailroom::${component} INTERFACE IMPORTED ${ARGN})
    target_link_libraries(mailroom::${component} INTERFACE mailroom::mailroom)
    foreach(need IN LISTS needs)
        if(TARGET "${need}")
            target_link_libraries(mailroom::${component} INTERFACE "${need}")
        else()
            target_include_directories(mailroom::${component} SYSTEM INTERFACE "${need}")
        endif()
    endforeach()
endfunction()
