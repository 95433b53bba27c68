// SPDX-License-Identifier: Apache-2.0
// From a header and what the user says of its secret to the cipher of the payload: what the driver
// of LUKS images and LUKS inside qcow2 share.
#pragma once

#include <memory>

#include "block/graph.h"
#include "crypto/sector_cipher.h"
#include "luks/view.h"
#include "luks/volume.h"
#include "luks/volume_settings.h"

namespace ringdisk::luks {

struct OpenVolume {
  LuksVolume volume;  // its key has gone into the cipher
  std::shared_ptr<const SectorCipher> cipher;
};

struct VolumeOpening {
  std::string secret_id;  // of key-secret=; empty: the key file, or a person
  std::string image;      // as the user calls it
  std::string option;     // in the image's description, that names the secret
  VolumeSettings settings;
  bool repairs_header = false;
};
Task<OpenVolume> open_volume(Graph& graph, HeaderWindow window, VolumeOpening opening);

// A view's options: the cipher, and who may take part in its work. Places are the caller's.
LuksViewOptions view_options(const World& world, const OpenVolume& opened);

}  // namespace ringdisk::luks
