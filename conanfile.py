from pathlib import Path
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load
from conan.tools.layout import basic_layout


class MailroomConan(ConanFile):
    name = "mailroom"
    description = "A message broker that lives inside your process: header-only, C++20"
    license = "BSL-1.0"
    topics = ("message-queue", "header-only", "concurrency")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"transient": [True, False], "asio": [True, False], "journal": [True, False], "sqlite": [True, False]}
    default_options = {"transient": False, "asio": False, "journal": False, "sqlite": False}
    no_copy_source = True
    exports_sources = "include/*", "LICENSE"

    def set_version(self):
        text = load(self, Path(self.recipe_folder) / "CMakeLists.txt")
        self.version = re.search(r"project\(mailroom VERSION ([0-9.]+)", text).group(1)

    def requirements(self):
        if self.options.transient:
            self.requires("concurrentqueue/[>=1.0.3 <2]", transitive_headers=True)
        if self.options.sqlite:
            self.requires("sqlite3/[>=3.24 <4]", transitive_headers=True, transitive_libs=True)
        if self.options.journal:
            self.requires("xxhash/[>=0.8 <0.9]", transitive_headers=True)
        if self.options.transient or self.options.asio or self.options.journal:
            self.requires("boost/[>=1.81 <2]", transitive_headers=True)

    def configure(self):
        if self.options.sqlite:
            self.options.journal = True  # its queues are where an outbox goes
        if self.options.transient or self.options.asio or self.options.journal:
            self.options["boost"].header_only = True

    def package_id(self):
        self.info.clear()

    def validate(self):
        check_min_cppstd(self, 20)

    def layout(self):
        basic_layout(self)

    def package(self):
        copy(self, "*.hpp", Path(self.source_folder) / "include", Path(self.package_folder) / "include")
        copy(self, "LICENSE", self.source_folder, Path(self.package_folder) / "licenses")

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.set_property("cmake_file_name", "mailroom")
        self.cpp_info.set_property("pkg_config_name", "mailroom")
        core = self.cpp_info.components["core"]
        core.bindirs = []
        core.libdirs = []
        core.set_property("cmake_target_name", "mailroom::mailroom")
        core.set_property("pkg_config_name", "mailroom")
        if self.settings.os in ("Linux", "FreeBSD"):
            core.system_libs = ["pthread"]
        needs = {
            "transient": ["concurrentqueue::concurrentqueue", "boost::headers"],
            "asio": ["boost::headers"],
            "journal": ["xxhash::xxhash", "boost::headers"],
            "sqlite": ["journal", "sqlite3::sqlite3"],
        }
        for name, libraries in needs.items():
            if self.options.get_safe(name):
                part = self.cpp_info.components[name]
                part.bindirs = []
                part.libdirs = []
                part.includedirs = []
                part.requires = ["core", *libraries]
                part.set_property("cmake_target_name", f"mailroom::{name}")
