# Headers, the CMake package and the pkg-config file. All of it finds itself by its own place: the prefix can be moved.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(mailroom_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/mailroom")
set(mailroom_pkgconfig_dir "${CMAKE_INSTALL_DATADIR}/pkgconfig")

install(TARGETS mailroom EXPORT mailroom-targets
    FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
    FILE_SET optional DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT mailroom-targets NAMESPACE mailroom:: DESTINATION "${mailroom_package_dir}")

configure_package_config_file(
    "${PROJECT_SOURCE_DIR}/cmake/mailroom-config.cmake.in" "${PROJECT_BINARY_DIR}/package/mailroom-config.cmake"
    INSTALL_DESTINATION "${mailroom_package_dir}"
    NO_SET_AND_CHECK_MACRO)
# While the major version is 0, each minor version may break the one before it.
set(mailroom_compatibility SameMajorVersion)
if(PROJECT_VERSION_MAJOR EQUAL 0)
    set(mailroom_compatibility SameMinorVersion)
endif()
write_basic_package_version_file("${PROJECT_BINARY_DIR}/package/mailroom-config-version.cmake"
    COMPATIBILITY ${mailroom_compatibility}
    ARCH_INDEPENDENT)
install(FILES
    "${PROJECT_BINARY_DIR}/package/mailroom-config.cmake"
    "${PROJECT_BINARY_DIR}/package/mailroom-config-version.cmake"
    "${PROJECT_SOURCE_DIR}/cmake/mailroom-optional.cmake"
    DESTINATION "${mailroom_package_dir}")

# From the folder of the .pc file to the include folder, whatever those two were set to.
file(RELATIVE_PATH mailroom_pc_include
    "${CMAKE_INSTALL_PREFIX}/${mailroom_pkgconfig_dir}" "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
file(RELATIVE_PATH mailroom_pc_prefix "${CMAKE_INSTALL_PREFIX}/${mailroom_pkgconfig_dir}" "${CMAKE_INSTALL_PREFIX}")
configure_file("${PROJECT_SOURCE_DIR}/cmake/mailroom.pc.in" "${PROJECT_BINARY_DIR}/package/mailroom.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/package/mailroom.pc" DESTINATION "${mailroom_pkgconfig_dir}")

install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/mailroom")
