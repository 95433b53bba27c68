// SPDX-License-Identifier: Apache-2.0
// What stands on the wire of NBD, as values: parsing of what a client sends, encoding of what a
// server answers. Pure functions over bounded spans: no I/O, no state. Parsers take any bytes
// whatever; encoders are given enough room (the sizes are in protocol.h) and give what they have
// written.
//
// Layouts after doc/proto.md, sections "Newstyle negotiation", "Option types", "Option reply
// types", "Request message", "Simple reply message", "Structured reply types".
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "nbd/protocol.h"

namespace ringdisk::nbd {

// --- handshake -----------------------------------------------------------------------------------

//   option:  | IHAVEOPT 8 | option 4 | length 4 | payload … |
struct OptionHeader {
  Option option{};
  uint32_t length = 0;
};
// `bytes`: kOptionHeaderBytes. kProtocol: the magic is wrong.
Result<OptionHeader> parse_option_header(Bytes bytes);

// INFO and GO:  | name length 4 | name | number of requests 2 | request 2 … |
struct ExportRequest {
  std::string_view name;  // a view of the payload
  bool wants_name = false;
  bool wants_description = false;
  bool wants_block_size = false;
};
// kInvalid: the lengths contradict each other, or the name is no string of the protocol.
Result<ExportRequest> parse_export_request(Bytes payload);

// LIST_META_CONTEXT and SET_META_CONTEXT:  | name length 4 | name | number of queries 4 | (length 4
// | query) … |
struct MetaContextRequest {
  std::string_view export_name;  // views of the payload
  std::vector<std::string_view> queries;
};
// kInvalid as above; kLimit: more queries than limits::kNbdMetaContextsMax.
Result<MetaContextRequest> parse_meta_context_request(Bytes payload);

// A name as the protocol has strings: at most limits::kNbdNameBytesMax bytes, none of them NUL.
bool is_protocol_string(std::string_view text);

// | NBDMAGIC 8 | IHAVEOPT 8 | handshake flags 2 |
Bytes encode_greeting(MutableBytes target);
// | reply magic 8 | option 4 | type 4 | length 4 |, to be followed by `length` bytes
Bytes encode_option_reply(MutableBytes target, Option option, OptionReply type, size_t length);
// | size 8 | transmission flags 2 | zeroes 124, unless left out |
Bytes encode_export_name_reply(MutableBytes target, uint64_t size, uint16_t flags, bool zeroes);
// The payloads of NBD_REP_INFO.
inline constexpr size_t kInfoExportBytes = 12;
inline constexpr size_t kInfoBlockSizeBytes = 14;
Bytes encode_info_export(MutableBytes target, uint64_t size, uint16_t flags);
Bytes encode_info_block_size(MutableBytes target, uint32_t minimum, uint32_t preferred,
                             uint32_t maximum);

// --- transmission --------------------------------------------------------------------------------

//   request:  | magic 4 | flags 2 | type 2 | cookie 8 | offset 8 | length 4 | payload … |
struct RequestHeader {
  uint16_t flags = 0;
  Command command{};
  uint64_t cookie = 0;  // the client's own; comes back in the reply
  uint64_t offset = 0;
  uint32_t length = 0;
};
// `bytes`: kRequestHeaderBytes. kProtocol: the magic is wrong.
Result<RequestHeader> parse_request_header(Bytes bytes);

// What a session has agreed on and its export is, as far as requests are judged by it
// (nbd/judge.h).
struct RequestTerms {
  uint64_t size = 0;
  bool read_only = false;
  bool structured_replies = false;
  bool block_status = false;  // a metadata context is selected
};
// The protocol's value for an error of ours. `fast_zero`: NBD_CMD_FLAG_FAST_ZERO was given, the
// only case in which the protocol knows "not supported".
WireError wire_error_of(const Error& error, bool fast_zero);

//   simple reply:  | magic 4 | error 4 | cookie 8 | data of a read … |
Bytes encode_simple_reply(MutableBytes target, uint64_t cookie, WireError error);

//   chunk:  | magic 4 | flags 2 | type 2 | cookie 8 | length 4 | payload … |
Bytes encode_none_chunk(MutableBytes target, uint64_t cookie);
// Payload: | offset 8 | data |, the data follows.
Bytes encode_offset_data_header(MutableBytes target, uint64_t cookie, uint64_t offset,
                                uint32_t length, bool done);
// Payload: | offset 8 | hole size 4 |
Bytes encode_offset_hole(MutableBytes target, uint64_t cookie, uint64_t offset, uint32_t length,
                         bool done);
// Payload: | error 4 | message length 2 | message |, the message follows.
Bytes encode_error_chunk_header(MutableBytes target, uint64_t cookie, WireError error,
                                size_t message_length);
// Payload: | context id 4 | (length 4 | flags 4) … |, the descriptors follow.
Bytes encode_block_status_header(MutableBytes target, uint64_t cookie, uint32_t context_id,
                                 size_t descriptors, bool done);
Bytes encode_block_descriptor(MutableBytes target, uint32_t length, uint32_t flags);

}  // namespace ringdisk::nbd
