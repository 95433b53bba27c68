// SPDX-License-Identifier: Apache-2.0
// Header, secret, cipher, view; on an error whatever was opened is closed.
#include "luks/driver.h"

#include "base/diagnostics.h"
#include "block/close_after.h"
#include "luks/luks1_header.h"
#include "luks/open_volume.h"
#include "luks/view.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace luks {
namespace {

constexpr std::string_view kSecretKey = "key-secret";

// Opens one image; lives in the frame of open_image.
class Opener {
 public:
  Opener(FormatOpening& opening, VolumeSettings settings)
      : opening_(opening), settings_(settings) {}

  // The payload, with opening.storage in it.
  Task<std::unique_ptr<SharedStorage>> open();

 private:
  Task<OpenVolume> open_with(SharedStorage& header);
  Task<OpenVolume> open_detached(Options described);
  const World& world() const { return opening_.world; }
  uint32_t node() const { return opening_.storage->node->id(); }

  FormatOpening& opening_;
  VolumeSettings settings_;
  std::string secret_id_;
  bool allow_discards_ = false;
};

Task<OpenVolume> Opener::open_with(SharedStorage& header) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(header, Shard::current());
  const bool is_read_only = opening_.mode.read_only || access->limits().read_only;
  const bool repairs_header = !is_read_only && !opening_.mode.keep_clean;
  const HeaderWindow window(*access);
  VolumeOpening volume;
  volume.secret_id = secret_id_;
  volume.image = opening_.storage->node->name();
  volume.option = kSecretKey;
  volume.settings = settings_;
  volume.repairs_header = repairs_header;
  co_return co_await open_volume(opening_.graph, window, std::move(volume)).result();
}

Task<OpenVolume> Opener::open_detached(Options described) {
  std::unique_ptr<SharedStorage> header =
      co_await opening_.graph.open_storage(std::move(described), opening_.mode);
  Result<OpenVolume> opened = co_await open_with(*header).result();
  co_return co_await close_after(std::move(opened), *header->node).result();
}

// header=FILE, or its description.
Options take_header(Options& options) {
  Options described = options.take_group("header");
  if (std::optional<std::string> path = options.take("header")) described.set("filename", *path);
  return described;
}

Task<std::unique_ptr<SharedStorage>> Opener::open() {
  Diagnostics& diagnostics = world().diagnostics;
  Options& options = opening_.options;
  secret_id_ = options.take(kSecretKey).value_or("");
  allow_discards_ = co_await options.take_bool("allow-discards", false, diagnostics);
  settings_.kdf_limits = co_await take_kdf_limits(options, settings_.kdf_limits, diagnostics);
  Options header = take_header(options);
  co_await options.check_all_taken("luks", diagnostics);
  const bool is_detached = !header.empty();
  OpenVolume opened;
  if (is_detached) {
    opened = co_await open_detached(std::move(header));
  } else {
    opened = co_await open_with(*opening_.storage);
  }
  const ByteCount size = co_await payload_size(world(), node(), opened.volume,
                                               opening_.storage->node->size(), is_detached);
  LuksViewOptions view = view_options(world(), opened);
  view.payload_offset = opened.volume.payload_offset;
  // One that goes to the end goes on doing so when the disk gets another size.
  if (opened.volume.payload_size) view.payload_size = size;
  view.iv_offset = opened.volume.iv_offset;
  view.allow_discards = allow_discards_ || opened.volume.allow_discards;
  co_return std::make_unique<SharedStorage>(
      std::make_unique<LuksView>(std::move(opening_.storage), std::move(view)));
}

Task<OpenedFormat> open_image(FormatOpening opening, FormatDriver raw, VolumeSettings settings) {
  Opener opener(opening, settings);
  Result<std::unique_ptr<SharedStorage>> view = co_await opener.open().result();
  if (!view.ok()) {
    // Why it could not be opened is the cause, not how the untouched storage closes.
    const uint32_t node = opening.storage->node->id();
    Result<void> closed = co_await opening.storage->node->close().result();
    static_cast<void>(closed.ok());
    co_return at_node(view.error(), node);
  }
  FormatOpening inner{opening.world,           opening.graph, std::move(view).value(),
                      std::move(opening.path), opening.mode,  Options()};
  co_return co_await raw.open(std::move(inner)).result();
}

int probe(Bytes first_bytes) {
  const bool is_luks = as_text(first_bytes).starts_with(kMagic) && first_bytes.size() >= 8 &&
                       first_bytes[6] == std::byte{0} &&
                       (first_bytes[7] == std::byte{1} || first_bytes[7] == std::byte{2});
  return is_luks ? 100 : 0;
}

}  // namespace
}  // namespace luks

FormatDriver luks_driver(FormatDriver raw, luks::VolumeSettings settings) {
  FormatDriver driver;
  driver.name = "luks";
  driver.probe = &luks::probe;
  driver.find_remains = &luks::find_remains;
  driver.words = {"key-secret", "allow-discards", "header", "header."};
  for (std::string_view limit : luks::kKdfLimitWords) driver.words.emplace_back(limit);
  driver.open = [raw, settings](FormatOpening opening) {
    return luks::open_image(std::move(opening), raw, settings);
  };
  return driver;
}

}  // namespace ringdisk
