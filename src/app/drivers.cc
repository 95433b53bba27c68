// SPDX-License-Identifier: Apache-2.0
// Adding a driver to ringdisk ends with one line here.
#include "app/drivers.h"

#include "file/file_node.h"
#include "luks/admin.h"
#include "luks/driver.h"
#include "nodes/mem.h"
#include "nodes/null.h"
#include "nodes/raw.h"
#include "nodes/raw_admin.h"
#include "nodes/window.h"
#include "qcow2/admin.h"
#include "qcow2/driver.h"

namespace ringdisk {

Drivers make_drivers(const DataEncryption& encryption, luks::VolumeSettings settings,
                     bool offers_share) {
  Drivers drivers;
  drivers.storages.push_back(file::file_driver(offers_share));
  drivers.storages.push_back(mem_driver());
  drivers.storages.push_back(null_driver());
  drivers.storages.push_back(window_driver(drivers));
  drivers.formats.push_back(qcow2_driver(&encryption));
  drivers.formats.push_back(luks_driver(raw_driver(), settings));
  drivers.formats.push_back(raw_driver());
  return drivers;
}

std::vector<std::unique_ptr<FormatAdmin>> make_format_admins(const DataEncryption& encryption,
                                                             luks::VolumeSettings settings) {
  std::vector<std::unique_ptr<FormatAdmin>> admins;
  admins.push_back(std::make_unique<RawAdmin>());
  admins.push_back(make_qcow2_admin(&encryption));
  admins.push_back(make_luks_admin(settings.kdf_limits));
  return admins;
}

}  // namespace ringdisk
