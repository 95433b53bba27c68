// SPDX-License-Identifier: Apache-2.0
// Every limit in one place, with its relations proven at compile time. A loop, a queue, a parser
// that has a bound names it here. Sizes are bytes unless the name says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ringdisk::limits {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

// runtime
inline constexpr uint32_t kShardsMax = 256;
inline constexpr uint32_t kReadyBatchMax = 256;      // tasks resumed between two looks at the loop
inline constexpr uint32_t kBlockingThreadsMax = 16;  // a loop's pool for calls that block

// block
inline constexpr uint64_t kRequestBytesMax =
    64 * kMiB;  // one request above the funnel; exports split or refuse
inline constexpr uint32_t kPiecesInFlightMax = 32;  // parallel pieces of one request (block/access)
inline constexpr uint32_t kBackingDepthMax = 200;   // images in one backing chain
inline constexpr uint32_t kBlockSizeMax =
    64 * kKiB;  // largest logical block a storage may advertise
inline constexpr uint64_t kBouncePieceBytesMax = 1 * kMiB;
inline constexpr uint64_t kCheckMemoryMin = 32 * kMiB;
inline constexpr uint64_t kCheckMemoryDefault = 1 * kGiB;

// qcow2: the specification gives no limits; these are QEMU's or wider, so that its images open
inline constexpr uint32_t kQcow2ClusterBitsMin = 9;
inline constexpr uint32_t kQcow2ClusterBitsMax = 21;
inline constexpr uint64_t kQcow2L1BytesMax = 32 * kMiB;
inline constexpr uint64_t kQcow2RefcountTableBytesMax = 8 * kMiB;
inline constexpr uint32_t kQcow2SnapshotsMax = 65536;
inline constexpr size_t kSnapshotNameBytesMax = 255;
inline constexpr uint64_t kQcow2SnapshotTableBytesMax = 64 * kMiB;
inline constexpr uint32_t kQcow2BackingNameBytesMax = 1023;
inline constexpr uint32_t kQcow2HeaderExtensionsMax = 64;

// nbd: doc/proto.md asks for strings up to 4096 bytes and requests up to 32 MiB
inline constexpr uint32_t kNbdNameBytesMax = 4096;
inline constexpr uint64_t kNbdRequestBytesMax = 32 * kMiB;
inline constexpr uint32_t kNbdOptionBytesMax = 64 * kKiB;
inline constexpr uint32_t kNbdHandshakeOptionsMax = 256;  // and, for clients that list,
inline constexpr uint32_t kNbdOptionsPerExportMax = 16;   // these for each export
inline constexpr uint32_t kNbdHandshakeSeconds = 20;
inline constexpr uint32_t kNbdDrainSeconds = 10;   // for the last replies of a connection
inline constexpr uint32_t kNbdComplaintsMax = 10;  // lines a second about clients
inline constexpr uint32_t kNbdConnectionsMax = 256;
inline constexpr uint32_t kNbdRequestsInFlightMax = 128;       // per connection
inline constexpr uint64_t kNbdPayloadInFlightMax = 64 * kMiB;  // per connection
inline constexpr uint32_t kNbdMetaContextsMax = 16;            // per connection

static_assert(kNbdRequestBytesMax <= kRequestBytesMax);
static_assert(kNbdRequestBytesMax <= kNbdPayloadInFlightMax, "one request must always fit");
static_assert((uint64_t{1} << kQcow2ClusterBitsMax) <= kRequestBytesMax);

}  // namespace ringdisk::limits
