// SPDX-License-Identifier: Apache-2.0
// Handshake: the server's side of fixed newstyle negotiation (doc/proto.md, "Handshake"). The
// client asks options one after another, until EXPORT_NAME or GO begins the transmission, ABORT
// ends the connection, or a bound is reached: options in all (limits::kNbdHandshakeOptionsMax and
// some for each export, which a client that lists asks about one by one), bytes of one option, and
// time, which is the caller's affair.
//
//   greeting ──> client flags ──> option ──> replies ──> … ──> GO: transmission | ABORT: end
//
// Belongs to one connection, on its shard. Refused by name: STARTTLS and EXTENDED_HEADERS (not here
// yet).
#pragma once

#include <array>
#include <memory>
#include <span>

#include "async/task.h"
#include "base/diagnostics.h"
#include "nbd/export.h"
#include "nbd/place.h"
#include "nbd/receive_buffer.h"
#include "nbd/wire.h"

namespace ringdisk::nbd {

// What was agreed on. No export: the client wanted none (it listed, and said goodbye).
struct Negotiated {
  Export* served = nullptr;
  bool structured_replies = false;
  StatusContexts contexts;  // selected, for this export
};

class Handshake {
 public:
  // All outlive it. `exports` is not empty.
  Handshake(Stream& stream, ReceiveBuffer& input, std::span<const std::unique_ptr<Export>> exports,
            Place& place, Diagnostics& diagnostics)
      : stream_(stream),
        input_(input),
        exports_(exports),
        place_(place),
        diagnostics_(diagnostics) {}

  // Once. Errors: kProtocol and kLimit (the client; with a note that says what it did), kBusy (the
  // place was revoked), kCancelled, the stream's.
  Task<Negotiated> run(CancelToken token);

 private:
  using Parts = std::array<Bytes, 3>;

  Task<void> greet();
  Task<void> answer_next();
  Task<void> refuse_oversize(OptionHeader header);
  Task<void> answer(OptionHeader header, Bytes payload);
  Task<void> answer_export_name(Bytes payload);
  Task<void> answer_list(OptionHeader header);
  Task<void> answer_structured_reply(OptionHeader header);
  Task<void> answer_info(OptionHeader header, Bytes payload);
  Task<void> describe_export(Option option, Export& served, const ExportRequest& request);
  Task<void> answer_meta_context(OptionHeader header, Bytes payload);
  Task<void> answer_contexts(OptionHeader header, const Export& served,
                             const MetaContextRequest& request);

  Task<void> reply(Option option, OptionReply type, Parts payload = {});
  Task<void> refuse(Option option, OptionReply type, std::string_view message);
  Task<void> send(ConstBuffers bytes);
  Result<void> settle();
  Export* find_export(std::string_view name) const;
  Error violation(std::string text);

  Stream& stream_;
  ReceiveBuffer& input_;
  const std::span<const std::unique_ptr<Export>> exports_;
  Place& place_;
  Diagnostics& diagnostics_;

  CancelToken token_;
  bool fixed_newstyle_ = false;
  bool sends_zeroes_ = true;
  bool ended_ = false;
  const Export* context_export_ = nullptr;  // for which contexts were selected last
  StatusContexts contexts_;
  Negotiated negotiated_;
};

}  // namespace ringdisk::nbd
