// SPDX-License-Identifier: Apache-2.0
// The pure half of making an image: options and places.
#include <algorithm>
#include <bit>

#include "base/diagnostics.h"
#include "block/open_gate.h"
#include "qcow2/compressor.h"
#include "qcow2/create.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kClusterSizeDefault = 65536;
constexpr uint64_t kRefcountBitsDefault = 16;
constexpr uint64_t kSectorBytes = 512;

Error refuse(Diagnostics& diagnostics, ErrorKind kind, std::string text) {
  return diagnostics.explain(Error::of(kind, "create"), std::move(text));
}

Result<uint32_t> parse_version(Options& options, Diagnostics& diagnostics) {
  const std::string compat = options.take("compat").value_or("1.1");
  if (compat == "1.1" || compat == "v3") return uint32_t{3};
  if (compat == "0.10" || compat == "v2") return uint32_t{2};
  return refuse(diagnostics, ErrorKind::kInvalid, "compat is 0.10 or 1.1, not '" + compat + "'");
}

Result<void> parse_geometry(Options& options, Header& header, Diagnostics& diagnostics) {
  ASSIGN_OR_RETURN(uint64_t cluster_size,
                   options.take_size("cluster_size", kClusterSizeDefault, diagnostics));
  constexpr uint64_t kSmallest = uint64_t{1} << limits::kQcow2ClusterBitsMin;
  constexpr uint64_t kLargest = uint64_t{1} << limits::kQcow2ClusterBitsMax;
  if (!std::has_single_bit(cluster_size) || cluster_size < kSmallest || cluster_size > kLargest) {
    return refuse(
        diagnostics, ErrorKind::kInvalid,
        "cluster_size is a power of two between 512 and 2M, not " + std::to_string(cluster_size));
  }
  header.cluster_bits = static_cast<uint32_t>(std::countr_zero(cluster_size));
  ASSIGN_OR_RETURN(uint64_t bits,
                   options.take_size("refcount_bits", kRefcountBitsDefault, diagnostics));
  if (!std::has_single_bit(bits) || bits > 64) {
    return refuse(diagnostics, ErrorKind::kInvalid,
                  "refcount_bits is a power of two between 1 and 64, not " + std::to_string(bits));
  }
  if (header.version < 3 && bits != kRefcountBitsDefault) {
    return refuse(diagnostics, ErrorKind::kInvalid, "refcount_bits other than 16 needs compat=1.1");
  }
  header.refcount_order = static_cast<uint32_t>(std::countr_zero(bits));
  return {};
}

Result<void> parse_extended_l2(Options& options, Header& header, Diagnostics& diagnostics) {
  ASSIGN_OR_RETURN(bool extended, options.take_bool("extended_l2", false, diagnostics));
  if (!extended) return {};
  if (header.version < 3) {
    return refuse(diagnostics, ErrorKind::kInvalid, "extended_l2=on needs compat=1.1");
  }
  if (header.cluster_bits < kExtendedClusterBitsMin) {
    return refuse(diagnostics, ErrorKind::kInvalid,
                  "extended_l2=on needs a cluster_size of 16384 bytes at least");
  }
  header.incompatible_features |= kIncompatibleExtendedL2;
  return {};
}

Result<void> parse_features(Options& options, Header& header, Diagnostics& diagnostics) {
  ASSIGN_OR_RETURN(bool lazy, options.take_bool("lazy_refcounts", false, diagnostics));
  if (lazy && header.version < 3) {
    return refuse(diagnostics, ErrorKind::kInvalid, "lazy_refcounts=on needs compat=1.1");
  }
  if (lazy) header.compatible_features |= kCompatibleLazyRefcounts;
  const std::string compression = options.take("compression_type").value_or("zlib");
  if (compression == "zstd") {
    if (header.version < 3) {
      return refuse(diagnostics, ErrorKind::kInvalid, "compression_type=zstd needs compat=1.1");
    }
    header.compression = Compression::kZstd;
    header.incompatible_features |= kIncompatibleCompression;
  } else if (compression != "zlib") {
    return refuse(diagnostics, ErrorKind::kInvalid,
                  "compression_type is zlib or zstd, not '" + compression + "'");
  }
  // A property of the run that fills the image: looked at, and not recorded.
  ASSIGN_OR_RETURN(uint64_t level, options.take_size("compression_level", 0, diagnostics));
  RETURN_IF_ERROR(check_compression_level(header.compression, level, diagnostics));
  RETURN_IF_ERROR(parse_extended_l2(options, header, diagnostics));
  return {};
}

// Everything of encrypt.* but the format is for the encryption to judge.
Result<void> parse_encryption(Options& options, CreateSettings& settings,
                              Diagnostics& diagnostics) {
  ASSIGN_OR_RETURN(bool is_legacy, options.take_bool("encryption", false, diagnostics));
  Options encryption = options.take_group("encrypt");
  if (!is_legacy && encryption.empty()) return {};
  const std::string format = encryption.take("format").value_or(is_legacy ? "aes" : "");
  if (format.empty()) {
    return refuse(diagnostics, ErrorKind::kInvalid,
                  "'encrypt." + encryption.values().begin()->first +
                      "' is for encrypted images; say encrypt.format=luks, too");
  }
  if (format != "luks") {
    return refuse(diagnostics, ErrorKind::kUnsupported,
                  format == "aes" ? "legacy AES encryption is not supported; there is: "
                                    "encrypt.format=luks"
                                  : "encrypt.format is luks, not '" + format + "'");
  }
  settings.encryption = std::move(encryption);
  // It has its place in the header from the beginning, so that what else is there leaves room.
  const HostRange unknown(HostOffset(0), ByteCount(0));
  set_encryption_header(settings.header, unknown);
  return {};
}

Result<void> check_encryption(const CreateSettings& settings, Diagnostics& diagnostics) {
  if (!settings.encryption) return {};
  if (settings.header.has_data_file()) {
    return refuse(diagnostics, ErrorKind::kUnsupported,
                  "encrypt.format together with a data_file is not supported");
  }
  // Only version 3 can say of a cluster that has a place that it reads as zeros.
  if (settings.preallocation == Preallocation::kOff || settings.header.version >= 3) return {};
  return refuse(diagnostics, ErrorKind::kInvalid,
                "preallocation of an encrypted image needs compat=1.1: what nobody wrote would "
                "read as noise");
}

Result<void> parse_data_file(Options& options, Header& header, Diagnostics& diagnostics) {
  const std::optional<std::string> name = options.take("data_file");
  ASSIGN_OR_RETURN(bool is_raw, options.take_bool("data_file_raw", false, diagnostics));
  auto refuse_it = [&](std::string why) {
    return refuse(diagnostics, ErrorKind::kInvalid, std::move(why));
  };
  if (!name && is_raw) return refuse_it("data_file_raw needs a data_file");
  if (!name) return {};
  if (header.version < 3) return refuse_it("data_file needs compat=1.1");
  if (name->empty() || has_protocol_prefix(*name)) {
    return refuse_it("data_file is the name of a local file, not '" + *name + "'");
  }
  if (is_raw && header.has_backing) {
    return refuse_it("data_file_raw and a backing image exclude each other");
  }
  header.incompatible_features |= kIncompatibleDataFile;
  if (is_raw) header.autoclear_features |= kAutoclearRawDataFile;
  set_extension(header, ExtensionType::kDataFileName, as_bytes(*name));
  return {};
}

Result<Preallocation> take_preallocation(Options& options, const Header& header,
                                         Diagnostics& diagnostics) {
  const std::string text = options.take("preallocation").value_or("off");
  const std::optional<Preallocation> mode = parse_preallocation(text);
  if (!mode) {
    return refuse(diagnostics, ErrorKind::kInvalid,
                  "preallocation is off, metadata, falloc or full, not '" + text + "'");
  }
  if (*mode != Preallocation::kOff && header.has_backing && !header.has_extended_l2()) {
    return refuse(diagnostics, ErrorKind::kInvalid,
                  "preallocation would hide the backing image; use one or the other, or "
                  "extended_l2=on");
  }
  // So that the data file can be read without the image whatever becomes of it.
  if (header.data_file_is_raw() && *mode == Preallocation::kOff) return Preallocation::kMetadata;
  return *mode;
}

Result<void> take_backing(CreateRequest& request, Header& header, Diagnostics& diagnostics) {
  // Without a test for emptiness -o backing_file=… would silently lose against -b "".
  if (std::optional<std::string> name = request.options.take("backing_file")) {
    request.backing_name = *name;
  }
  if (std::optional<std::string> format = request.options.take("backing_fmt")) {
    request.backing_format = *format;
  }
  if (request.backing_name.empty()) return {};
  if (request.backing_name.size() > limits::kQcow2BackingNameBytesMax) {
    return refuse(diagnostics, ErrorKind::kLimit,
                  "the name of a backing file has at most 1023 bytes");
  }
  set_backing(header, request.backing_name, request.backing_format);
  return {};
}

uint64_t divide_up(uint64_t value, uint64_t by) { return value / by + (value % by != 0 ? 1 : 0); }

struct RefcountPlan {
  uint64_t table = 0, blocks = 0;  // clusters
};

// For `others` clusters besides, with a table of `table_min` clusters at least. Refcount blocks
// count themselves and their table: grow until they suffice.
RefcountPlan plan_refcounts(const Geometry& geometry, uint64_t others, uint64_t table_min) {
  RefcountPlan plan;
  plan.table = table_min;
  for (;;) {
    const uint64_t total = others + plan.table + plan.blocks;
    const uint64_t blocks = divide_up(total, geometry.refcount_block_entries());
    const uint64_t table = std::max(geometry.clusters_of(blocks * kEntryBytes), table_min);
    if (blocks == plan.blocks && table == plan.table) return plan;
    plan.blocks = std::max(blocks, plan.blocks);
    plan.table = std::max(table, plan.table);
  }
}

}  // namespace

Result<CreateSettings> parse_create_options(CreateRequest& request, Diagnostics& diagnostics) {
  CreateSettings settings;
  Header& header = settings.header;
  Options& options = request.options;
  // Whole sectors, as every program that opens it counts them.
  header.size = ByteCount((request.size.value() + kSectorBytes - 1) / kSectorBytes * kSectorBytes);
  ASSIGN_OR_RETURN(header.version, parse_version(options, diagnostics));
  RETURN_IF_ERROR(parse_geometry(options, header, diagnostics));
  RETURN_IF_ERROR(parse_features(options, header, diagnostics));
  RETURN_IF_ERROR(parse_encryption(options, settings, diagnostics));
  RETURN_IF_ERROR(take_backing(request, header, diagnostics));
  RETURN_IF_ERROR(parse_data_file(options, header, diagnostics));
  ASSIGN_OR_RETURN(settings.preallocation, take_preallocation(options, header, diagnostics));
  RETURN_IF_ERROR(check_encryption(settings, diagnostics));
  RETURN_IF_ERROR(options.check_all_taken("qcow2", diagnostics));
  add_feature_names(header);
  return settings;
}

Layout lay_out(const CreateSettings& settings) {
  const Header& header = settings.header;
  const Geometry geometry = header.geometry();
  Layout layout{};
  layout.l1_entries = geometry.l1_entries_for(header.size);
  layout.l1_clusters = geometry.clusters_of(layout.l1_entries * kEntryBytes);
  layout.encryption_clusters = geometry.clusters_of(settings.encryption_bytes.value());
  const uint64_t data_clusters = header.has_data_file() ? 0 : geometry.guest_clusters(header.size);
  if (settings.preallocation != Preallocation::kOff) {
    layout.l2_clusters = layout.l1_entries;
    layout.data_clusters = data_clusters;
  }
  // The table has room for all clusters from the beginning: one that is outgrown leaves a hole.
  const uint64_t fixed = 1 + layout.l1_clusters + layout.encryption_clusters;
  const RefcountPlan all = plan_refcounts(geometry, fixed + layout.l1_entries + data_clusters, 0);
  const uint64_t table_max = limits::kQcow2RefcountTableBytesMax / geometry.cluster_size();
  const uint64_t now = fixed + layout.l2_clusters + layout.data_clusters;
  const RefcountPlan plan = plan_refcounts(geometry, now, std::min(all.table, table_max));
  layout.refcount_table_clusters = plan.table;
  layout.refcount_block_clusters = plan.blocks;
  layout.total = now + plan.table + plan.blocks;
  layout.refcount_table = 1;
  layout.refcount_blocks = layout.refcount_table + layout.refcount_table_clusters;
  layout.l1_table = layout.refcount_blocks + layout.refcount_block_clusters;
  layout.encryption = layout.l1_table + layout.l1_clusters;
  layout.l2_tables = layout.encryption + layout.encryption_clusters;
  layout.data = layout.l2_tables + layout.l2_clusters;
  return layout;
}

Result<Layout> plan_layout(const CreateSettings& settings, Diagnostics& diagnostics) {
  const Layout layout = lay_out(settings);
  const uint64_t table_bytes =
      layout.refcount_table_clusters * settings.header.geometry().cluster_size();
  if (layout.l1_entries <= limits::kQcow2L1BytesMax / kEntryBytes &&
      table_bytes <= limits::kQcow2RefcountTableBytesMax) {
    return layout;
  }
  return refuse(diagnostics, ErrorKind::kLimit,
                "the image is too large for its cluster size; a larger cluster_size allows more");
}

}  // namespace ringdisk::qcow2
