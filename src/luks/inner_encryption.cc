// SPDX-License-Identifier: Apache-2.0
// The header's window is the format's to say; everything else is as with a LUKS image.
#include "luks/inner_encryption.h"

#include "base/diagnostics.h"
#include "luks/amend.h"
#include "luks/create_options.h"
#include "luks/describe.h"
#include "luks/open_volume.h"
#include "luks/view.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace luks {
namespace {

HeaderWindow window_at(StorageAccess& file, HostRange place) {
  return HeaderWindow(file, place.offset, place.length);
}

// What is asked for, and how long its header is. The secret is another matter.
struct InnerRequest {
  FormatRequest format;
  ByteCount header_bytes;
};

Result<InnerRequest> read_request(Options& options, Diagnostics& diagnostics) {
  InnerRequest request;
  ASSIGN_OR_RETURN(request.format, take_format_options(options, diagnostics));
  RETURN_IF_ERROR(options.check_all_taken("the encryption", diagnostics));
  const Refusal refusal(diagnostics, 0);
  if (request.format.version != 1) {
    return refusal.unsupported("LUKS inside another format is of version 1");
  }
  ASSIGN_OR_RETURN(const FormatPlaces places, plan_format(request.format, refusal));
  request.header_bytes = places.payload_offset;
  return request;
}

// Whatever points there: the file that it pointed at was longer.
Error cut_short(Diagnostics& diagnostics, const SharedStorage& file) {
  return diagnostics.explain(Error::of(ErrorKind::kCorrupt, "read"), file.node->id(),
                             "has been cut short: guest data lies beyond the end of the file; run "
                             "'ringdisk check " +
                                 file.node->name() + "'");
}

class NewLuksEncryption final : public NewEncryption {
 public:
  NewLuksEncryption(const World& world, FormatRequest request, ByteCount header_bytes,
                    SharedSecret secret)
      : world_(world),
        request_(std::move(request)),
        header_bytes_(header_bytes),
        secret_(std::move(secret)) {}

  ByteCount header_bytes() const override { return header_bytes_; }
  Task<void> write_header(SharedStorage& file, HostRange place) override {
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(file, Shard::current());
    // Zeros where the other key slots will lie, whatever the storage held.
    co_await access->write_zeroes(place);
    FormatRequest request = request_;
    request.passphrase = secret_->bytes();
    const HeaderWindow window = window_at(*access, place);
    LuksVolume made = co_await format_luks(world_, window, std::move(request));
    static_cast<void>(made);
  }

 private:
  const World& world_;
  const FormatRequest request_;
  const ByteCount header_bytes_;
  const SharedSecret secret_;
};

class LuksEncryption final : public DataEncryption {
 public:
  explicit LuksEncryption(VolumeSettings settings) : settings_(settings) {}

  std::string_view name() const override { return "luks"; }
  OptionLines create_options() const override { return cipher_option_lines(false); }
  OptionLines amend_options() const override { return amend_option_lines(); }
  DriverWords open_words() const override {
    DriverWords words = {"key-secret"};
    for (std::string_view limit : kKdfLimitWords) words.emplace_back(limit);
    return words;
  }

  Result<ByteCount> measure(Diagnostics& diagnostics, Options options) const override {
    options.take("key-secret");
    ASSIGN_OR_RETURN(const InnerRequest request, read_request(options, diagnostics));
    return request.header_bytes;
  }

  Task<std::unique_ptr<NewEncryption>> prepare(Graph& graph, std::string image,
                                               Options options) const override {
    const World& world = graph.world();
    SecretWish wish;
    wish.id = options.take("key-secret").value_or("");
    wish.image = std::move(image);
    wish.is_new = true;
    wish.option = options.prefix() + "key-secret";
    wish.place = SecretPlace::kOptions;
    InnerRequest request = co_await read_request(options, world.diagnostics);
    request.format.kdf.stop = settings_.kdf_limits.stop;
    SharedSecret secret = co_await graph.find_secret(std::move(wish));
    co_return std::make_unique<NewLuksEncryption>(world, std::move(request.format),
                                                  request.header_bytes, std::move(secret));
  }

  Task<std::unique_ptr<SharedStorage>> open_view(Graph& graph, SharedStorage& file,
                                                 HostRange header, Options options) const override {
    VolumeOpening volume;
    volume.secret_id = options.take("key-secret").value_or("");
    volume.image = file.node->name();
    volume.option = "encrypt.key-secret";
    volume.settings = settings_;
    volume.settings.kdf_limits =
        co_await take_kdf_limits(options, settings_.kdf_limits, graph.world().diagnostics);
    co_await options.check_all_taken("the encryption", graph.world().diagnostics);
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(file, Shard::current());
    const HeaderWindow window = window_at(*access, header);
    OpenVolume opened = co_await open_volume(graph, window, std::move(volume));
    LuksViewOptions view = view_options(graph.world(), opened);
    view.error_beyond_end = cut_short(graph.world().diagnostics, file);
    co_return std::make_unique<SharedStorage>(std::make_unique<LuksView>(file, std::move(view)));
  }

  Task<std::vector<DescribedField>> describe(const World& world, StorageAccess& file,
                                             HostRange header) const override {
    const HeaderWindow window = window_at(file, header);
    DescribedVolume described = co_await describe_volume(world, window);
    co_return std::move(described.fields);
  }

  Task<void> amend(Graph& graph, SharedStorage& file, HostRange header,
                   Options options) const override {
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(file, Shard::current());
    const HeaderWindow window = window_at(*access, header);
    co_await amend_volume(graph, window, file.node->name(), settings_.kdf_limits,
                          std::move(options));
  }

 private:
  const VolumeSettings settings_;
};

}  // namespace
}  // namespace luks

std::unique_ptr<DataEncryption> make_luks_encryption(luks::VolumeSettings settings) {
  return std::make_unique<luks::LuksEncryption>(settings);
}

}  // namespace ringdisk
