# SPDX-License-Identifier: Apache-2.0
#
# Which folder uses which library from outside, by pkg-config name. The library is looked for only
# when the folder exists; its Debian package belongs into scripts/install-deps and its reason into
# docs/decisions/0001-dependencies.md. CLI11 and nlohmann-json are headers only and need no entry.
set(RD_EXTERNAL_runtime liburing)
set(RD_EXTERNAL_crypto libcrypto libargon2)
set(RD_EXTERNAL_codec zlib libzstd libdeflate)
set(RD_EXTERNAL_nbd libssl)
set(RD_EXTERNAL_http libssl)
set(RD_EXTERNAL_ublk liburing)

# Links `target`, the library of `folder`, with what the table names.
function(rd_link_externals target folder)
  foreach(package IN LISTS RD_EXTERNAL_${folder})
    pkg_check_modules(RD_PC_${package} REQUIRED QUIET IMPORTED_TARGET ${package})
    target_link_libraries(${target} PUBLIC PkgConfig::RD_PC_${package})
  endforeach()
endfunction()
