# What the project's own programs (tests, examples, benchmarks) are built with. Nothing here reaches a consumer: the
# settings travel by linking mailroom_own, which only our programs do.

include_guard()

set(CMAKE_CXX_EXTENSIONS OFF)  # for the targets of this folder and those below

option(MAILROOM_WERROR "Treat warnings of mailroom's own programs as errors" OFF)
set(MAILROOM_SANITIZE "" CACHE STRING "Sanitizers for mailroom's own programs: address,undefined or thread")

set(test_house ON)
if(MAILROOM_SANITIZE)
    set(test_house OFF)
endif()
option(MAILROOM_TEST_HOUSE "Test also what needs no running: headers alone, compile_fail, consumers, budget" ${test_house})

set(mailroom_warnings "")
if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang" AND NOT MSVC)
    set(mailroom_warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
    if(MAILROOM_WERROR)
        list(APPEND mailroom_warnings -Werror)
    endif()
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND MAILROOM_SANITIZE MATCHES "thread")
        list(APPEND mailroom_warnings -Wno-tsan)  # "atomic_thread_fence is not supported": the rivals' and moodycamel's
    endif()
endif()

add_library(mailroom_own INTERFACE)
target_compile_options(mailroom_own INTERFACE ${mailroom_warnings})
if(MAILROOM_SANITIZE)
    set(mailroom_sanitizers -fsanitize=${MAILROOM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_compile_options(mailroom_own INTERFACE ${mailroom_sanitizers})
    target_link_options(mailroom_own INTERFACE ${mailroom_sanitizers})
endif()
foreach(component IN LISTS mailroom_components)
    if(TARGET mailroom::${component})
        target_link_libraries(mailroom_own INTERFACE mailroom::${component})
    else()
        message(STATUS "mailroom: what mailroom::${component} needs was not found; sources that use it are left out")
    endif()
endforeach()
target_link_libraries(mailroom_own INTERFACE mailroom::mailroom)

# mailroom_libpq: PostgreSQL's client, for what shows and tests two-phase commit with a database.
find_path(MAILROOM_LIBPQ_INCLUDE_DIR libpq-fe.h PATH_SUFFIXES postgresql pgsql DOC "The folder that holds libpq-fe.h")
find_library(MAILROOM_LIBPQ_LIBRARY pq DOC "PostgreSQL's client library")
mark_as_advanced(MAILROOM_LIBPQ_INCLUDE_DIR MAILROOM_LIBPQ_LIBRARY)
if(MAILROOM_LIBPQ_INCLUDE_DIR AND MAILROOM_LIBPQ_LIBRARY)
    add_library(mailroom_libpq INTERFACE)
    target_include_directories(mailroom_libpq SYSTEM INTERFACE "${MAILROOM_LIBPQ_INCLUDE_DIR}")
    target_link_libraries(mailroom_libpq INTERFACE "${MAILROOM_LIBPQ_LIBRARY}")
else()
    message(STATUS "mailroom: PostgreSQL's libpq was not found; what uses it is left out")
endif()

# Drops from the list the sources that include a header whose library is not there, or the library itself.
set(mailroom_library_of_transient "<boost/lockfree|concurrentqueue\\.h>")
set(mailroom_library_of_asio "<boost/asio")
set(mailroom_library_of_journal "<xxhash\\.h>|<boost/(pfr|json)")
set(mailroom_library_of_sqlite "<sqlite3\\.h>")
function(mailroom_keep_buildable list_variable)
    set(kept "")
    foreach(source IN LISTS ${list_variable})
        file(STRINGS "${source}" lines REGEX "#[ \t]*include[ \t]*[<\"]")
        set(buildable TRUE)
        if(NOT TARGET mailroom_libpq AND lines MATCHES "<libpq-fe\\.h>|/sql_session\\.hpp\"")
            set(buildable FALSE)
        endif()
        foreach(component IN LISTS mailroom_components)
            if(NOT TARGET mailroom::${component}
               AND lines MATCHES "<mailroom/(${mailroom_headers_of_${component}})\\.hpp>|${mailroom_library_of_${component}}")
                set(buildable FALSE)
            endif()
        endforeach()
        if(buildable)
            list(APPEND kept "${source}")
        endif()
    endforeach()
    set(${list_variable} "${kept}" PARENT_SCOPE)
endfunction()

# Each header of the core compiled alone, with our warnings, whenever the tests are built. To be called when every folder
# has been added: the target that compiles them is made by CMake at the end and takes its options from the top folder,
# which the programs must not inherit.
function(mailroom_verify_headers)
    set_target_properties(mailroom PROPERTIES
        VERIFY_INTERFACE_HEADER_SETS ON
        INTERFACE_HEADER_SETS_TO_VERIFY HEADERS)
    set_property(DIRECTORY "${PROJECT_SOURCE_DIR}" APPEND PROPERTY COMPILE_OPTIONS ${mailroom_warnings})
    if(CMAKE_VERSION VERSION_GREATER_EQUAL 3.24)
        add_custom_target(mailroom_headers_alone ALL)
        add_dependencies(mailroom_headers_alone mailroom_verify_interface_header_sets)
    endif()
endfunction()
