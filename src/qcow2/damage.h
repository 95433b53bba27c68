// SPDX-License-Identifier: Apache-2.0
// Errors of images that are damaged, as a person is to read them: which entry of which table, the
// guest offset where there is one, and what to do. Any shard. Each keeps a note in Diagnostics,
// which keeps a bounded number of them.
//
//   disk.qcow2: L2 entry 17 of L1 entry 0 (guest offset 69632) is damaged; run 'ringdisk check
//   disk.qcow2'
#pragma once

#include "qcow2/image.h"

namespace ringdisk::qcow2 {

// What maps `guest` is damaged: its L1 entry, or else its L2 entry.
Error damaged_mapping(const Image& image, ClusterIndex guest);
// The L2 table of an L1 entry lies where there is no file.
Error missing_table(const Image& image, uint64_t l1_index);
// The L2 table of an L1 entry cannot be read because of `cause`, whose kind and errno stay.
Error unread_table(const Image& image, uint64_t l1_index, Error cause);
// The stream of a compressed cluster cannot be decompressed. A check does not look into streams.
Error damaged_stream(const Image& image, ClusterIndex guest, HostOffset stream);
// A cluster is given up more often than it is counted.
Error low_refcount(const Image& image, ClusterIndex host);
// A cluster counts as free, but a table lies there, or an entry points at it.
Error used_free_cluster(const Image& image, ClusterIndex host);
Error damaged_refcount_table(const Image& image, uint64_t entry);
// A table of the disk or of a snapshot does not lie where one may.
Error damaged_table(const Image& image, HostOffset at, uint64_t entries);
// An entry met while following tables from the start: "L1" or "L2".
Error damaged_entry(const Image& image, const char* table, uint64_t raw);

// What a change of an image gets that has ended as a writable one; nothing where it has not.
Result<void> check_writable(const Image& image, const char* operation);

// From now on nothing of the tables reaches the disk; what it holds is right as far as it goes.
// Logged once.
void end_writing(Image& image, const Error& cause);

// The last part of a message: "; run 'ringdisk check IMAGE'".
std::string advice(const Image& image);

}  // namespace ringdisk::qcow2
