// SPDX-License-Identifier: Apache-2.0
// The device contract on qcow2 images: versions, cluster sizes, refcount widths, files and used
// block devices, alone and over backing images, with and without subclusters.
#include "qcow2/image_fixture_test.h"
#include "sim/device_contract.h"

namespace ringdisk::qcow2 {
namespace {

using sim::SimDiskOptions;

sim::ImageFormat image(uint32_t version, uint32_t cluster_bits, uint32_t refcount_order,
                       uint64_t backing_bytes = 0) {
  TestImage settings;
  settings.version = version;
  settings.cluster_bits = cluster_bits;
  settings.refcount_order = refcount_order;
  settings.backing_bytes = backing_bytes;
  return test_format(settings);
}

sim::ImageFormat extended_image(uint32_t cluster_bits, uint64_t backing_bytes = 0) {
  TestImage settings;
  settings.cluster_bits = cluster_bits;
  settings.extended_l2 = true;
  settings.backing_bytes = backing_bytes;
  return test_format(settings);
}

sim::ImageFormat detecting_image() {
  TestImage settings;
  settings.policy.detect_zeroes = DetectZeroes::kUnmap;
  return test_format(settings);
}

SimDiskOptions used_device(uint32_t block_size) {
  return SimDiskOptions::block_device(ByteCount(32 << 20), block_size);
}

constexpr uint64_t kShorter = (2 << 20) + 512;
constexpr uint64_t kLonger = 4 << 20;

RINGDISK_DEVICE_CONTRACT(qcow2_64k, image(3, 16, 4), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_512_refcount_64, image(3, 9, 6), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_4k_refcount_1, image(3, 12, 0), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_2m, image(3, 21, 4), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_detects_zeroes, detecting_image(), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_version_2, image(2, 16, 4), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_on_512, image(3, 12, 4), used_device(512));
RINGDISK_DEVICE_CONTRACT(qcow2_on_4096, image(3, 16, 3), used_device(4096));
RINGDISK_DEVICE_CONTRACT(qcow2_over_shorter, image(3, 16, 4, kShorter), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_over_longer, image(3, 12, 4, kLonger), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_version_2_over, image(2, 12, 4, kLonger), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_extended_64k, extended_image(16), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_extended_2m, extended_image(21), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_extended_on_4096, extended_image(14), used_device(4096));
RINGDISK_DEVICE_CONTRACT(qcow2_extended_over_shorter, extended_image(16, kShorter),
                         SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_extended_over_longer, extended_image(14, kLonger),
                         SimDiskOptions::file());

}  // namespace
}  // namespace ringdisk::qcow2
