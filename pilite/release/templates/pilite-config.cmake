# find_package(pilite) defines the target pilite::pilite, wherever this folder was unpacked.
get_filename_component(_pilite_prefix "${CMAKE_CURRENT_LIST_DIR}/@UP@/.." ABSOLUTE)
if(NOT TARGET pilite::pilite)
  add_library(pilite::pilite SHARED IMPORTED)
  set_target_properties(pilite::pilite PROPERTIES
    IMPORTED_LOCATION "${_pilite_prefix}/@LIB@/libpilite.so"
    IMPORTED_SONAME "libpilite.so"
    INTERFACE_INCLUDE_DIRECTORIES "${_pilite_prefix}/include"
    INTERFACE_COMPILE_FEATURES cxx_std_17)
endif()
unset(_pilite_prefix)
