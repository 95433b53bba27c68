// SPDX-License-Identifier: Apache-2.0
// Image: what all shards share of one open image. Owned by its Qcow2Node; outlives queues and the
// home shard's state.
//
//   constant after open      world, storage, header fields, geometry, limits
//   any shard (atomic)       L1 table, slices, pins, health, dirty bitmaps
//   the rest of the metadata belongs to the home shard: qcow2/home/home.h
#pragma once

#include <memory>

#include "block/format.h"
#include "block/storage_access.h"
#include "qcow2/bitmaps/dirty_tracking.h"
#include "qcow2/health.h"
#include "qcow2/l1_table.h"
#include "qcow2/layout/data_file_entry.h"
#include "qcow2/layout/header.h"
#include "qcow2/pins.h"
#include "qcow2/planted_bug.h"
#include "qcow2/slice_departures.h"
#include "qcow2/slice_directory.h"
#include "runtime/world.h"

namespace ringdisk::qcow2 {

// What `driver=qcow2,…` and the open mode may set.
struct ImageOptions {
  uint64_t slice_memory_max;  // l2-cache-size
  bool keep_clean = false;    // OpenMode::keep_clean
  // Cache modes writethrough and directsync: what a request changes of the mapping is durable when
  // it completes, as the bytes in place are.
  bool writes_through = false;
  bool keep_zeroes = false;      // OpenMode::keep_zeroes
  bool is_lazy = false;          // refcounts: as the image records, or lazy-refcounts=
  bool gives_space_back = true;  // of freed clusters, to the host: pass-discard-request=
};

struct Image {
  // `the_data`: the data file, or an encrypted image as its data is seen; null where guest data
  // lies in `the_storage` as it is.
  Image(const World& the_world, std::unique_ptr<SharedStorage> the_storage,
        std::unique_ptr<SharedStorage> the_data, Header the_header, Bytes l1_bytes,
        FormatLimits the_limits, ImageOptions the_options)
      : world(the_world),
        storage(std::move(the_storage)),
        data(std::move(the_data)),
        header(std::move(the_header)),
        geometry(header.geometry()),
        limits(the_limits),
        options(the_options),
        l1(l1_bytes),
        slices(l1.size() * geometry.slices_per_table()),
        pins(the_world.shards.size()),
        size(header.size) {}

  bool has_zero_flag() const { return header.version >= 3; }
  uint32_t node_id() const { return storage->node->id(); }
  bool has_data_file() const { return header.has_data_file(); }
  // The data file is the disk, read as raw: zeros are written, nothing is given back.
  bool data_file_is_raw() const {
    return has_data_file() && (header.autoclear_features & kAutoclearRawDataFile) != 0;
  }
  // Not of an encrypted image that was opened for its metadata alone.
  SharedStorage& data_storage() const { return data ? *data : *storage; }
  // The place in data_storage() that an entry in memory names as `host`.
  uint64_t place_in_data(uint64_t host) const {
    return has_data_file() ? host & ~kInDataFile : host;
  }
  // Whether a cluster that is not allocated may show something else than zeros.
  bool may_show_below() const { return header.has_backing || options.keep_zeroes; }

  // constant after open
  const World& world;
  const std::unique_ptr<SharedStorage> storage;
  // The guest's: a data file, or a view of `storage` that deciphers; null: it lies in `storage`.
  const std::unique_ptr<SharedStorage> data;
  const Header header;  // as it was read; what changes later is the home shard's
  const Geometry geometry;
  const FormatLimits limits;
  const ImageOptions options;

  // any shard
  L1Table l1;
  SliceDirectory slices;
  SliceDepartures departures;
  Pins pins;
  Health health;
  DirtyTracking tracking;

  // constant from the first queue on: the header's, or more while a larger disk is made ready
  ByteCount size;

  // tests only; before the first queue
  PlantedBug planted_bug = PlantedBug::kNone;
};

}  // namespace ringdisk::qcow2
