// SPDX-License-Identifier: Apache-2.0
// Each request is a few calls of what header.h, format.h and keys.h offer.
#include "luks/admin.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "block/close_after.h"
#include "block/preallocation.h"
#include "luks/amend.h"
#include "luks/create_options.h"
#include "luks/describe.h"
#include "luks/format.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace luks {
namespace {

// What `create` is asked for.
struct NewVolume {
  FormatRequest format;
  FormatPlaces places;
  SharedSecret secret;
  Preallocation preallocation = Preallocation::kOff;
  ByteCount file_bytes;
};

Result<Preallocation> take_preallocation(Options& options, const Refusal& refusal) {
  const std::string text = options.take("preallocation").value_or("off");
  const std::optional<Preallocation> how = parse_preallocation(text);
  if (how) return *how;  // there is no metadata to preallocate, which QEMU takes as well
  return refusal.invalid("preallocation of a LUKS image is off, falloc or full, not '" + text +
                         "'");
}

// Sectors are whole, so a disk may come out a little larger.
Result<ByteCount> file_bytes_of(const NewVolume& volume, ByteCount size, const Refusal& refusal) {
  if (volume.format.is_detached) return volume.places.header_end;
  const uint64_t sector = volume.format.sector_size;
  const uint64_t offset = volume.places.payload_offset.value();
  if (size.value() > kOffsetMax - offset - sector) {
    return refusal.limit("the size is larger than a file can be");
  }
  return ByteCount(offset + (size.value() + sector - 1) / sector * sector);
}

// All but the secret.
Result<NewVolume> read_options(Options& options, ByteCount size, Diagnostics& diagnostics) {
  const Refusal refusal(diagnostics, 0);
  NewVolume volume;
  ASSIGN_OR_RETURN(volume.format, take_format_options(options, diagnostics));
  ASSIGN_OR_RETURN(volume.format.is_detached,
                   options.take_bool("detached-header", false, diagnostics));
  ASSIGN_OR_RETURN(volume.preallocation, take_preallocation(options, refusal));
  RETURN_IF_ERROR(options.check_all_taken("luks", diagnostics));
  ASSIGN_OR_RETURN(volume.places, plan_format(volume.format, refusal));
  ASSIGN_OR_RETURN(volume.file_bytes, file_bytes_of(volume, size, refusal));
  return volume;
}

Task<NewVolume> read_request(Graph& graph, CreateRequest& request) {
  Diagnostics& diagnostics = graph.world().diagnostics;
  const Refusal refusal(diagnostics, 0);
  if (!request.backing_name.empty()) {
    co_return refusal.unsupported(
        "a LUKS image cannot have a backing file; a qcow2 image can, and "
        "encrypt.format=luks encrypts that");
  }
  Options& options = request.options;
  SecretWish wish;
  wish.id = options.take("key-secret").value_or("");
  wish.image = request.storage.get("filename").value_or("image");
  wish.is_new = true;
  wish.place = SecretPlace::kOptions;
  NewVolume volume = co_await read_options(options, request.size, diagnostics);
  // Last, so that nobody is asked for the sake of a request that is wrong.
  volume.secret = co_await graph.find_secret(std::move(wish));
  co_return std::move(volume);
}

Task<void> write_volume(const World& world, SharedStorage& storage, const NewVolume& volume,
                        CancelToken stop) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  FormatRequest request = volume.format;
  request.passphrase = volume.secret->bytes();
  request.kdf.stop = stop;
  const HeaderWindow window(*access);
  LuksVolume made = co_await format_luks(world, window, std::move(request));
  const HostOffset begin(made.payload_offset.value()), end(volume.file_bytes.value());
  if (end <= begin || volume.format.is_detached) co_return;
  const HostRange payload = HostRange::between(begin, end);
  co_await take_space(*access, payload, volume.preallocation);
}

// --- another size

Task<void> resize_payload(const World& world, SharedStorage& storage, ByteCount size) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  const HeaderWindow window(*access);
  const LuksHeader header = co_await read_header(world, window);
  const VolumeFacts facts = co_await supported_facts(world, window, header);
  const Refusal refusal = window.refusal(world);
  if (facts.payload_offset.is_zero()) {
    co_await fail(
        refusal.unsupported("is a detached header; the disk is in another file, which "
                            "can be resized as raw"));
  }
  if (facts.payload_size) {
    co_await fail(refusal.unsupported("the header fixes the size of the disk"));
  }
  if (size.value() % facts.sector_size != 0) {
    co_await fail(refusal.invalid("the size is no multiple of the sectors' " +
                                  std::to_string(facts.sector_size) + " bytes"));
  }
  if (size.value() > kOffsetMax - facts.payload_offset.value()) {
    co_await fail(refusal.limit("no file can be that large"));
  }
  co_await access->resize(facts.payload_offset + size);
  co_await access->flush();
}

// --- check

// What is wrong with the header, counted and told; nothing of the payload can be.
class HeaderCheck {
 public:
  HeaderCheck(const World& world, StorageAccess& storage, CheckOptions options)
      : world_(world), storage_(storage), window_(storage), options_(options) {}

  Task<CheckReport> run() {
    Result<LuksHeader> header = co_await read_header(world_, window_).result();
    if (!header.ok()) {
      co_await note(header.error());
      co_return std::move(report_);
    }
    co_await judge_copies(header.value());
    Result<VolumeFacts> facts = supported_facts(world_, window_, header.value());
    if (!facts.ok()) {
      co_await note(facts.error());
    } else {
      if (header.value().luks1) judge_slots(facts.value());
      co_await judge_payload(facts.value());
    }
    co_return std::move(report_);
  }

 private:
  // Damage is a finding, everything else the end of the check.
  Result<void> note(const Error& error) {
    if (error.kind != ErrorKind::kCorrupt) return error;
    ++report_.corruptions;
    report_.messages.push_back("ERROR " + world_.diagnostics.describe(error));
    return {};
  }

  Task<void> judge_copies(LuksHeader& header) {
    if (!header.luks2 || !header.luks2->bad_copy) co_return;
    report_.messages.push_back("ERROR " + damage_of(*header.luks2));
    if (options_.repair != CheckRepair::kAll) {
      ++report_.corruptions;
      co_return;
    }
    co_await repair_header(world_, window_, header);
    ++report_.corruptions_fixed;
  }

  // Of LUKS1, where what this program cannot use is damage.
  void judge_slots(const VolumeFacts& facts) {
    for (const UnusableSlot& slot : facts.unusable_slots) {
      ++report_.corruptions;
      report_.messages.push_back("ERROR key slot " + std::to_string(slot.number) +
                                 " cannot be used: " + slot.why);
    }
  }

  Result<void> judge_payload(const VolumeFacts& facts) {
    if (facts.payload_offset.is_zero()) return {};  // in another file
    LuksVolume volume;
    volume.payload_offset = facts.payload_offset;
    volume.payload_size = facts.payload_size;
    volume.sector_size = facts.sector_size;
    Result<ByteCount> size =
        payload_size(world_, storage_.node_id(), volume, storage_.size(), false);
    return size.ok() ? Result<void>() : note(size.error());
  }

  const World& world_;
  StorageAccess& storage_;
  const HeaderWindow window_;
  const CheckOptions options_;
  CheckReport report_;
};

Task<CheckReport> check_header(const World& world, SharedStorage& storage, CheckOptions options) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  HeaderCheck check(world, *access, options);
  co_return co_await check.run().result();
}

Task<void> amend_header(Graph& graph, SharedStorage& storage, KdfLimits limits, Options options) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  const HeaderWindow window(*access);
  co_await amend_volume(graph, window, storage.node->name(), limits, std::move(options));
}

// Of a detached header 0: its disk is elsewhere, and the header's own file is none.
ByteCount disk_size(const DescribedVolume& described, ByteCount file_size) {
  if (described.payload_size) return *described.payload_size;
  const uint64_t offset = described.payload_offset.value(), there = file_size.value();
  if (offset == 0 || offset > there) return ByteCount(0);
  return ByteCount((there - offset) / 512 * 512);
}

class LuksAdmin final : public FormatAdmin {
 public:
  explicit LuksAdmin(KdfLimits limits) : limits_(limits) {}

  std::string_view name() const override { return "luks"; }
  bool new_reads_zero() const override { return false; }

  // Words that are neither on nor off create() refuses.
  bool has_disk(const Options& options) const override {
    const std::string word = options.get("detached-header").value_or("off");
    return word != "on" && word != "yes" && word != "true" && word != "y";
  }

  OptionLines create_options() const override {
    OptionLines lines = cipher_option_lines(true);
    lines.emplace_back("detached-header=<bool (on/off)>", "Make a detached LUKS header alone");
    lines.emplace_back("preallocation=<str>", "Take the space at once: off, falloc, full");
    lines.emplace_back("size=<size>", "Virtual disk size");
    std::ranges::sort(lines);
    return lines;
  }
  OptionLines amend_options() const override { return amend_option_lines(); }

  Task<void> create(Graph& graph, CreateRequest request) override {
    NewVolume volume = co_await read_request(graph, request);
    co_await graph.create_storage(request.storage, volume.file_bytes);
    OpenMode mode;
    std::unique_ptr<SharedStorage> storage = co_await graph.open_storage(request.storage, mode);
    Result<void> written =
        co_await write_volume(graph.world(), *storage, volume, limits_.stop).result();
    co_await close_after(std::move(written), *storage->node);
  }

  // What is not written is noise, but it is there: the file is as long as the disk.
  Task<MeasureReport> measure(const World& world, MeasureRequest request) override {
    Options& options = request.options;
    options.take("key-secret");
    const NewVolume volume = co_await read_options(options, request.size, world.diagnostics);
    MeasureReport report;
    report.required = report.fully_allocated = volume.file_bytes;
    co_return report;
  }

  Task<ImageDescription> describe(const World& world, SharedStorage& storage) override {
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
    const HeaderWindow window(*access);
    DescribedVolume described = co_await describe_volume(world, window);
    ImageDescription description;
    description.encrypted = true;
    description.virtual_size = disk_size(described, access->size());
    description.specific = std::move(described.fields);
    co_return std::move(description);
  }

  Task<void> resize(Graph& graph, std::unique_ptr<SharedStorage> storage, ByteCount size) override {
    Result<void> resized = co_await resize_payload(graph.world(), *storage, size).result();
    co_await close_after(std::move(resized), *storage->node);
  }

  Task<void> amend(Graph& graph, AmendRequest request) override {
    std::unique_ptr<SharedStorage> storage = co_await request.open();
    Result<void> amended =
        co_await amend_header(graph, *storage, limits_, request.options).result();
    co_await close_after(std::move(amended), *storage->node);
  }

  Task<std::optional<CheckReport>> check(const World& world, SharedStorage& storage,
                                         CheckOptions options, CancelToken,
                                         std::function<void(CheckProgress)>) override {
    CheckReport report = co_await check_header(world, storage, options);
    co_return std::optional<CheckReport>(std::move(report));
  }

 private:
  const KdfLimits limits_;
};

}  // namespace
}  // namespace luks

std::unique_ptr<FormatAdmin> make_luks_admin(luks::KdfLimits limits) {
  return std::make_unique<luks::LuksAdmin>(limits);
}

}  // namespace ringdisk
