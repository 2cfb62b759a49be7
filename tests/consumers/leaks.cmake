# Before and after a project is added: nothing of the consumer's own settings may have changed.

set(watched_properties COMPILE_OPTIONS COMPILE_DEFINITIONS INCLUDE_DIRECTORIES LINK_OPTIONS LINK_LIBRARIES
                       COMPILE_FEATURES BUILDSYSTEM_TARGETS TESTS)

macro(remember_settings)
    set(CMAKE_CXX_STANDARD 17)
    set(remembered_variables "")
    get_cmake_property(remembered_variables VARIABLES)
    set(remembered_cache "")
    get_cmake_property(remembered_cache CACHE_VARIABLES)
    foreach(variable IN ITEMS CMAKE_CXX_FLAGS CMAKE_CXX_FLAGS_DEBUG CMAKE_CXX_STANDARD CMAKE_CXX_EXTENSIONS
                              CMAKE_CXX_STANDARD_REQUIRED CMAKE_EXE_LINKER_FLAGS BUILD_TESTING BUILD_SHARED_LIBS
                              CMAKE_POSITION_INDEPENDENT_CODE CMAKE_MODULE_PATH CMAKE_PREFIX_PATH
                              CMAKE_VERIFY_INTERFACE_HEADER_SETS CMAKE_RUNTIME_OUTPUT_DIRECTORY)
        set(remembered_${variable} "${${variable}}")
        list(APPEND watched_variables ${variable})
    endforeach()
    foreach(property IN LISTS watched_properties)
        get_property(remembered_${property} DIRECTORY PROPERTY ${property})
    endforeach()
endmacro()

macro(compare_settings)
    foreach(variable IN LISTS watched_variables)
        if(NOT "${${variable}}" STREQUAL "${remembered_${variable}}")
            message(SEND_ERROR "${variable} leaked: '${remembered_${variable}}' became '${${variable}}'")
        endif()
    endforeach()
    foreach(property IN LISTS watched_properties)
        get_property(now DIRECTORY PROPERTY ${property})
        if(NOT "${now}" STREQUAL "${remembered_${property}}")
            message(SEND_ERROR "the folder's ${property} leaked: '${remembered_${property}}' became '${now}'")
        endif()
    endforeach()
    # New cache entries carry our name, or are those of find_package(Threads) and of CMake itself.
    get_cmake_property(now CACHE_VARIABLES)
    foreach(variable IN LISTS now)
        if(NOT variable IN_LIST remembered_cache
           AND NOT variable MATCHES "^(MAILROOM_|mailroom_|FETCHCONTENT_|FIND_PACKAGE_MESSAGE_DETAILS_|CMAKE_HAVE_|THREADS_|CMAKE_|consumer_)")
            message(SEND_ERROR "the cache variable ${variable} leaked")
        endif()
    endforeach()
    # What links the library gets its folder, its language mode and threads: no flags, no macros.
    foreach(property IN ITEMS INTERFACE_COMPILE_OPTIONS INTERFACE_COMPILE_DEFINITIONS INTERFACE_LINK_OPTIONS)
        get_target_property(now mailroom::mailroom ${property})
        if(now)
            message(SEND_ERROR "mailroom::mailroom carries ${property}: ${now}")
        endif()
    endforeach()
    # Of targets, the library alone.
    get_property(targets DIRECTORY "${mailroom_source}" PROPERTY BUILDSYSTEM_TARGETS)
    if(NOT targets STREQUAL "mailroom")
        message(SEND_ERROR "the added project has more targets than the library: ${targets}")
    endif()
    get_property(folders DIRECTORY "${mailroom_source}" PROPERTY SUBDIRECTORIES)
    if(folders)
        message(SEND_ERROR "the added project adds folders of its own: ${folders}")
    endif()
endmacro()
