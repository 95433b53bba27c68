// SPDX-License-Identifier: Apache-2.0
// The options, each with its answers.
#include "nbd/handshake.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/endian.h"
#include "base/limits.h"
#include "nbd/reply.h"

namespace ringdisk::nbd {
namespace {

// An option larger than we look at is skipped and refused, up to this size; beyond it the client is
// thrown out.
constexpr uint32_t kOptionSkipBytesMax = 16 << 20;

// Everything below us takes any alignment (block/access pads), so these are the protocol's
// defaults.
constexpr uint32_t kBlockSizeMinimum = 1;
constexpr uint32_t kBlockSizePreferred = 4096;

constexpr std::string_view kAllocationContext = "base:allocation";
constexpr std::string_view kBitmapNamespace = "qemu:dirty-bitmap:";
// What LIST_META_CONTEXT takes for all that begin so.
constexpr std::array<std::string_view, 3> kListedPrefixes = {"base:", "qemu:", kBitmapNamespace};

static_assert(limits::kNbdOptionBytesMax <= ReceiveBuffer::kContiguousMax);

// A context of an export, by its full name.
struct NamedContext {
  std::string name;
  StatusContext context;
};

std::vector<NamedContext> contexts_of(const Export& served) {
  std::vector<NamedContext> contexts;
  contexts.push_back({std::string(kAllocationContext), {kAllocationContextId, nullptr}});
  uint32_t id = kFirstBitmapContextId;
  for (const ExportBitmap& bitmap : served.bitmaps()) {
    contexts.push_back({std::string(kBitmapNamespace) + bitmap.name, {id++, bitmap.bits.get()}});
  }
  return contexts;
}

// Whether one of the queries asks for it. Unknown contexts and namespaces are to be ignored.
bool is_asked_for(std::string_view name, const MetaContextRequest& request, bool lists) {
  if (lists && request.queries.empty()) return true;
  return std::any_of(request.queries.begin(), request.queries.end(), [&](auto query) {
    if (query == name) return true;
    const bool is_prefix =
        std::find(kListedPrefixes.begin(), kListedPrefixes.end(), query) != kListedPrefixes.end();
    return lists && is_prefix && name.starts_with(query);
  });
}

}  // namespace

Error Handshake::violation(std::string text) {
  return diagnostics_.explain(Error::of(ErrorKind::kProtocol, "NBD handshake"), std::move(text));
}

// Before the answer that lets the client begin: what it has seen granted is not taken back.
Result<void> Handshake::settle() {
  if (place_.try_settle()) return {};
  return Error::of(ErrorKind::kBusy, "NBD handshake");
}

Export* Handshake::find_export(std::string_view name) const {
  for (const auto& candidate : exports_) {
    if (candidate->name() == name) return candidate.get();
  }
  // The empty name asks for the default export: the first.
  return name.empty() ? exports_.front().get() : nullptr;
}

Task<Negotiated> Handshake::run(CancelToken token) {
  token_ = token;
  co_await greet();
  const uint64_t options_max =
      limits::kNbdHandshakeOptionsMax + limits::kNbdOptionsPerExportMax * exports_.size();
  for (uint64_t options = 0; !ended_; ++options) {
    if (options == options_max) {
      co_return violation("the client negotiates without end");
    }
    co_await answer_next();
  }
  if (context_export_ == negotiated_.served) negotiated_.contexts = contexts_;
  co_return negotiated_;
}

Task<void> Handshake::greet() {
  std::array<std::byte, kGreetingBytes> greeting;
  Bytes encoded = encode_greeting(greeting);
  co_await send(encoded);
  co_await input_.require(kClientFlagsBytes, token_);
  uint32_t flags = load_be32(input_.received().data());
  input_.consume(kClientFlagsBytes);
  if ((flags & ~(kClientFixedNewstyle | kClientNoZeroes)) != 0) {
    co_await fail(violation("the client set unknown flags in its greeting"));
  }
  fixed_newstyle_ = (flags & kClientFixedNewstyle) != 0;
  sends_zeroes_ = (flags & kClientNoZeroes) == 0;
}

Task<void> Handshake::answer_next() {
  co_await input_.require(kOptionHeaderBytes, token_);
  Result<OptionHeader> header = parse_option_header(input_.received().first(kOptionHeaderBytes));
  if (!header.ok()) {
    co_await fail(violation("the client sent something else than an option"));
  }
  input_.consume(kOptionHeaderBytes);
  OptionHeader option = header.value();
  if (!fixed_newstyle_ && option.option != Option::kExportName) {
    co_await fail(violation("the client sent an option of fixed newstyle without agreeing on it"));
  }
  if (option.length > limits::kNbdOptionBytesMax) {
    co_await refuse_oversize(option);
    co_return;
  }
  co_await input_.require(option.length, token_);
  Bytes payload = input_.received().first(option.length);
  co_await answer(option, payload);
  input_.consume(option.length);
}

Task<void> Handshake::refuse_oversize(OptionHeader header) {
  bool has_answer = header.option != Option::kExportName;
  if (!has_answer || header.length > kOptionSkipBytesMax) {
    co_await fail(violation("the client sent an option of absurd length"));
  }
  co_await input_.skip(header.length, token_);
  co_await refuse(header.option, OptionReply::kErrorTooBig, "the option is too large");
}

Task<void> Handshake::answer(OptionHeader header, Bytes payload) {
  switch (header.option) {
    case Option::kExportName:
      co_await answer_export_name(payload);
      break;
    case Option::kAbort:
      ended_ = true;
      // Whether the client still listens is its own affair.
      (void)co_await reply(header.option, OptionReply::kAck).result();
      break;
    case Option::kList:
      co_await answer_list(header);
      break;
    case Option::kInfo:
    case Option::kGo:
      co_await answer_info(header, payload);
      break;
    case Option::kStructuredReply:
      co_await answer_structured_reply(header);
      break;
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      co_await answer_meta_context(header, payload);
      break;
    case Option::kStartTls:
    case Option::kExtendedHeaders:
    default:
      co_await refuse(header.option, OptionReply::kErrorUnsupported, "not supported");
  }
}

Task<void> Handshake::answer_export_name(Bytes payload) {
  Export* served = find_export(as_text(payload));
  if (!served) co_await fail(violation("the client asked for an export that is not served"));
  co_await settle();
  std::array<std::byte, kExportNameReplyBytes + kExportNameZeroes> target;
  uint16_t flags = served->transmission_flags(negotiated_.structured_replies);
  Bytes encoded = encode_export_name_reply(target, served->size(), flags, sends_zeroes_);
  co_await send(encoded);
  negotiated_.served = served;
  ended_ = true;
}

Task<void> Handshake::answer_list(OptionHeader header) {
  if (header.length != 0) {
    co_await refuse(header.option, OptionReply::kErrorInvalid, "the option takes no payload");
    co_return;
  }
  for (const auto& listed : exports_) {
    std::array<std::byte, 4> name_length;
    store_be32(name_length.data(), static_cast<uint32_t>(listed->name().size()));
    Parts parts = {Bytes(name_length), as_bytes(listed->name()), as_bytes(listed->description())};
    co_await reply(header.option, OptionReply::kServer, parts);
  }
  co_await reply(header.option, OptionReply::kAck);
}

Task<void> Handshake::answer_structured_reply(OptionHeader header) {
  if (header.length != 0) {
    co_await refuse(header.option, OptionReply::kErrorInvalid, "the option takes no payload");
    co_return;
  }
  negotiated_.structured_replies = true;
  co_await reply(header.option, OptionReply::kAck);
}

Task<void> Handshake::answer_info(OptionHeader header, Bytes payload) {
  Result<ExportRequest> request = parse_export_request(payload);
  if (!request.ok()) {
    co_await refuse(header.option, OptionReply::kErrorInvalid, "the option's lengths do not fit");
    co_return;
  }
  Export* served = find_export(request.value().name);
  if (!served) {
    co_await refuse(header.option, OptionReply::kErrorUnknown, "no export has this name");
    co_return;
  }
  co_await describe_export(header.option, *served, request.value());
  if (header.option == Option::kGo) co_await settle();
  co_await reply(header.option, OptionReply::kAck);
  if (header.option == Option::kInfo) co_return;
  negotiated_.served = served;
  ended_ = true;
}

Task<void> Handshake::describe_export(Option option, Export& served, const ExportRequest& request) {
  std::array<std::byte, kInfoExportBytes> size_and_flags;
  uint16_t flags = served.transmission_flags(negotiated_.structured_replies);
  Parts parts;
  parts[0] = encode_info_export(size_and_flags, served.size(), flags);
  co_await reply(option, OptionReply::kInfo, parts);
  std::array<std::byte, 2> type;
  if (request.wants_name) {
    store_be16(type.data(), static_cast<uint16_t>(InfoType::kName));
    parts[0] = type;
    parts[1] = as_bytes(served.name());
    co_await reply(option, OptionReply::kInfo, parts);
  }
  if (request.wants_description && !served.description().empty()) {
    store_be16(type.data(), static_cast<uint16_t>(InfoType::kDescription));
    parts[0] = type;
    parts[1] = as_bytes(served.description());
    co_await reply(option, OptionReply::kInfo, parts);
  }
  if (!request.wants_block_size) co_return;
  std::array<std::byte, kInfoBlockSizeBytes> block_size;
  parts[0] = encode_info_block_size(block_size, kBlockSizeMinimum, kBlockSizePreferred,
                                    static_cast<uint32_t>(limits::kNbdRequestBytesMax));
  parts[1] = {};
  co_await reply(option, OptionReply::kInfo, parts);
}

Task<void> Handshake::answer_meta_context(OptionHeader header, Bytes payload) {
  bool lists = header.option == Option::kListMetaContext;
  // A new selection replaces the old one even where it fails.
  if (!lists) {
    context_export_ = nullptr;
    contexts_ = StatusContexts();
  }
  Result<MetaContextRequest> request = parse_meta_context_request(payload);
  if (!request.ok()) {
    bool too_many = request.error().kind == ErrorKind::kLimit;
    OptionReply answer = too_many ? OptionReply::kErrorTooBig : OptionReply::kErrorInvalid;
    co_await refuse(header.option, answer, "too many queries, or lengths that do not fit");
    co_return;
  }
  if (!lists && !negotiated_.structured_replies) {
    co_await refuse(header.option, OptionReply::kErrorInvalid, "needs structured replies");
    co_return;
  }
  Export* served = find_export(request.value().export_name);
  if (!served) {
    co_await refuse(header.option, OptionReply::kErrorUnknown, "no export has this name");
    co_return;
  }
  co_await answer_contexts(header, *served, request.value());
}

Task<void> Handshake::answer_contexts(OptionHeader header, const Export& served,
                                      const MetaContextRequest& request) {
  const bool lists = header.option == Option::kListMetaContext;
  std::vector<NamedContext> contexts = contexts_of(served);
  std::erase_if(contexts,
                [&](const NamedContext& one) { return !is_asked_for(one.name, request, lists); });
  if (!lists && contexts.size() > kStatusContextsMax) {
    co_await refuse(header.option, OptionReply::kErrorTooBig,
                    "too many contexts for one connection");
    co_return;
  }
  for (const NamedContext& one : contexts) {
    std::array<std::byte, 4> id;
    store_be32(id.data(), lists ? 0 : one.context.id);
    Parts parts = {Bytes(id), as_bytes(one.name), Bytes()};
    co_await reply(header.option, OptionReply::kMetaContext, parts);
    if (lists) continue;
    context_export_ = &served;
    contexts_.selected[contexts_.count++] = one.context;
  }
  co_await reply(header.option, OptionReply::kAck);
}

Task<void> Handshake::refuse(Option option, OptionReply type, std::string_view message) {
  Parts parts;
  parts[0] = as_bytes(message);
  co_await reply(option, type, parts);
}

Task<void> Handshake::reply(Option option, OptionReply type, Parts payload) {
  size_t length = 0;
  for (Bytes part : payload) length += part.size();
  std::array<std::byte, kOptionReplyHeaderBytes> header;
  Bytes encoded = encode_option_reply(header, option, type, length);
  std::array<iovec, 4> parts;
  size_t count = 0;
  auto add = [&parts, &count](Bytes part) {
    if (part.empty()) return;
    parts[count].iov_base = const_cast<std::byte*>(part.data());
    parts[count++].iov_len = part.size();
  };
  add(encoded);
  for (Bytes part : payload) add(part);
  co_await send(ConstBuffers(parts.data(), count));
}

Task<void> Handshake::send(ConstBuffers bytes) { co_await stream_.write_all(bytes, token_); }

}  // namespace ringdisk::nbd
