# mailroom_optional(<transient|asio|journal> [GLOBAL]): makes the target mailroom::<name>, which is mailroom::mailroom
# with the libraries those headers need, and leaves nothing behind where they are not found. Used by this project's own
# build and by its installed package (find_package(mailroom COMPONENTS transient asio journal)).
#
#   transient   store/transient.hpp               moodycamel::ConcurrentQueue, Boost.Lockfree
#   asio        asio.hpp                          Boost.Asio
#   journal     journal.hpp, message/codec.hpp    xxHash, Boost.PFR
#               json.hpp                          Boost.JSON, of the same Boost; where that comes in single libraries,
#                                                 who uses json.hpp links Boost::json himself

include_guard()

set(mailroom_boost_minimum 108100)  # 1.81, as BOOST_VERSION writes it
set(mailroom_xxhash_minimum 0.8)  # before, XXH3 gave other sums

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

# The folder that holds xxhash.h, of at least the version above. (The journal inlines it: the header is enough.)
function(mailroom_find_xxhash result)
    set(${result} "" PARENT_SCOPE)
    if(TARGET xxHash::xxhash)
        set(${result} xxHash::xxhash PARENT_SCOPE)
        return()
    endif()
    find_path(MAILROOM_XXHASH_INCLUDE_DIR xxhash.h DOC "The folder that holds xxhash.h")
    mark_as_advanced(MAILROOM_XXHASH_INCLUDE_DIR)
    if(NOT MAILROOM_XXHASH_INCLUDE_DIR)
        return()
    endif()
    set(version "")
    foreach(part MAJOR MINOR)
        file(STRINGS "${MAILROOM_XXHASH_INCLUDE_DIR}/xxhash.h" line REGEX "^#[ \t]*define[ \t]+XXH_VERSION_${part}[ \t]+[0-9]+")
        string(REGEX REPLACE "^.*XXH_VERSION_${part}[ \t]+([0-9]+).*" "\\1" number "${line}")
        list(APPEND version "${number}")
    endforeach()
    list(JOIN version "." version)
    if(version VERSION_GREATER_EQUAL mailroom_xxhash_minimum)
        set(${result} "${MAILROOM_XXHASH_INCLUDE_DIR}" PARENT_SCOPE)
    else()
        unset(MAILROOM_XXHASH_INCLUDE_DIR CACHE)  # too old: look again next time
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
    elseif(component STREQUAL "journal")
        mailroom_find_boost(boost pfr)
        mailroom_find_xxhash(xxhash)
        if(NOT boost OR NOT xxhash)
            return()
        endif()
        set(needs "${boost}" "${xxhash}")
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
