// SPDX-License-Identifier: Apache-2.0
// Hands each request to the file that answers it.
#include "qcow2/admin.h"

#include <algorithm>
#include <array>

#include "block/data_encryption.h"
#include "qcow2/bitmaps/bitmaps.h"
#include "qcow2/check/check.h"
#include "qcow2/compact/compact.h"
#include "qcow2/create.h"
#include "qcow2/describe.h"
#include "qcow2/edit/amend.h"
#include "qcow2/edit/backing.h"
#include "qcow2/edit/empty.h"
#include "qcow2/edit/resize.h"
#include "qcow2/edit/snapshots.h"
#include "qcow2/measure.h"

namespace ringdisk {
namespace {

using OptionLines = std::vector<std::pair<std::string, std::string>>;

// The options of encrypt.*, in the order in which qemu-img shows what was given.
constexpr std::array<const char*, 8> kEncryptOptions = {
    "encrypt.format",    "encrypt.key-secret",     "encrypt.cipher-alg", "encrypt.cipher-mode",
    "encrypt.ivgen-alg", "encrypt.ivgen-hash-alg", "encrypt.hash-alg",   "encrypt.iter-time"};

void add_encrypt_lines(OptionLines& lines, const OptionLines& more) {
  for (const auto& [option, meaning] : more) lines.emplace_back("encrypt." + option, meaning);
  std::ranges::sort(lines);
}

class Qcow2Admin final : public FormatAdmin {
 public:
  explicit Qcow2Admin(const DataEncryption* encryption) : encryption_(encryption) {}

  std::string_view name() const override { return "qcow2"; }

  std::vector<std::pair<std::string, std::string>> create_options() const override {
    OptionLines lines = {
        {"backing_file=<str>", "File name of a base image"},
        {"backing_fmt=<str>", "Image format of the base image"},
        {"cluster_size=<size>", "qcow2 cluster size, 512 to 2M (default: 65536)"},
        {"compat=<str>", "Compatibility level, v2 [0.10] or v3 [1.1] (default: 1.1)"},
        {"compression_level=<num>",
         "Effort of convert -c: zlib 1 to 12 (default: 5), zstd 1 to 22 (default: 4)"},
        {"compression_type=<str>",
         "Compression method of compressed clusters: zlib or zstd (default: zlib)"},
        {"data_file=<str>", "File name of an external data file"},
        {"data_file_raw=<bool (on/off)>",
         "The external data file must stay valid as a raw image (default: off)"},
        {"extended_l2=<bool (on/off)>",
         "Extended L2 entries: clusters of 32 subclusters (default: off)"},
        {"lazy_refcounts=<bool (on/off)>", "Postpone refcount updates (default: off)"},
        {"preallocation=<str>", "Preallocation mode: off, metadata, falloc, full (default: off)"},
        {"refcount_bits=<num>", "Width of a reference count entry in bits (default: 16)"},
    };
    if (!encryption_) return lines;
    add_encrypt_lines(lines, encryption_->create_options());
    lines.emplace_back("encrypt.format=<str>", "Encrypt the image, format choices: luks");
    std::ranges::sort(lines);
    return lines;
  }

  // What was not asked for is shown with its default.
  std::vector<std::pair<std::string, std::string>> creation_summary(
      const CreateRequest& request) const override {
    const Options& options = request.options;
    std::vector<std::pair<std::string, std::string>> shown;
    auto show_size = [&](const char* key, const char* otherwise) {
      const std::string text = options.get(key).value_or(otherwise);
      Result<uint64_t> size = parse_size(text);
      shown.emplace_back(key, size.ok() ? std::to_string(size.value()) : text);
    };
    auto show = [&](const char* key, const char* otherwise) {
      shown.emplace_back(key, options.get(key).value_or(otherwise));
    };
    auto show_given = [&](const char* key, const std::string& text) {
      if (!text.empty()) shown.emplace_back(key, text);
    };
    for (const char* key : kEncryptOptions) show_given(key, options.get(key).value_or(""));
    show_size("cluster_size", "65536");
    show("extended_l2", "off");
    show_given("preallocation", options.get("preallocation").value_or(""));
    show("compression_type", "zlib");
    shown.emplace_back("size", std::to_string(request.size.value()));
    show_given("compat", options.get("compat").value_or(""));
    show_given("backing_file", options.get("backing_file").value_or(request.backing_name));
    show_given("backing_fmt", options.get("backing_fmt").value_or(request.backing_format));
    show_given("data_file", options.get("data_file").value_or(""));
    show_given("data_file_raw", options.get("data_file_raw").value_or(""));
    show("lazy_refcounts", "off");
    show_size("refcount_bits", "16");
    return shown;
  }

  bool compresses() const override { return true; }
  Task<void> create(Graph& graph, CreateRequest request) override {
    return qcow2::create_image(graph, std::move(request), encryption_);
  }
  Task<MeasureReport> measure(const World& world, MeasureRequest request) override {
    return qcow2::measure_image(world, std::move(request), encryption_);
  }
  Task<ImageDescription> describe(const World& world, SharedStorage& storage) override {
    return qcow2::describe_image(world, storage, encryption_);
  }
  Task<void> check_new_size(const World& world, SharedStorage& storage, ByteCount size) override {
    return qcow2::check_new_size(world, storage, size);
  }
  Task<void> prepare_growth(Graph& graph, std::unique_ptr<SharedStorage> storage,
                            ByteCount size) override {
    return qcow2::prepare_growth(graph, std::move(storage), size);
  }
  Result<void> show_grown(FormatNode& node, ByteCount size) override {
    return qcow2::show_grown(node, size);
  }
  Task<void> resize(Graph& graph, std::unique_ptr<SharedStorage> storage, ByteCount size) override {
    return qcow2::resize_image(graph, std::move(storage), size);
  }
  Task<void> make_empty(const World&, FormatNode& node) override {
    return qcow2::empty_image(node);
  }
  Task<void> edit_snapshots(Graph& graph, std::unique_ptr<SharedStorage> storage,
                            SnapshotEdit edit) override {
    return qcow2::edit_snapshots(graph, std::move(storage), std::move(edit));
  }
  Task<void> change_backing(const World&, FormatNode& node, std::string name,
                            std::string format) override {
    return qcow2::change_backing(node, std::move(name), std::move(format));
  }
  std::vector<std::pair<std::string, std::string>> amend_options() const override {
    OptionLines lines = qcow2::amend_options();
    if (encryption_) add_encrypt_lines(lines, encryption_->amend_options());
    return lines;
  }
  Task<void> amend(Graph& graph, AmendRequest request) override {
    return qcow2::amend_image(graph, std::move(request), encryption_);
  }
  Task<CompactReport> compact(Graph& graph, std::unique_ptr<SharedStorage> storage,
                              CompactRequest request) override {
    return qcow2::compact_image(graph, std::move(storage), qcow2::CompactLimits(),
                                std::move(request), encryption_);
  }
  Task<void> edit_bitmaps(Graph& graph, std::unique_ptr<SharedStorage> storage,
                          std::vector<BitmapEdit> edits) override {
    return qcow2::edit_bitmaps(graph, std::move(storage), std::move(edits));
  }
  Task<std::optional<CheckReport>> check(const World& world, SharedStorage& storage,
                                         CheckOptions options, CancelToken cancel,
                                         std::function<void(CheckProgress)> on_progress) override {
    return qcow2::check_image(world, storage, options, cancel, std::move(on_progress));
  }

 private:
  const DataEncryption* const encryption_;
};

}  // namespace

std::unique_ptr<FormatAdmin> make_qcow2_admin(const DataEncryption* encryption) {
  return std::make_unique<Qcow2Admin>(encryption);
}

}  // namespace ringdisk
