// SPDX-License-Identifier: Apache-2.0
// The rules of each command, and their texts.
#include "nbd/judge.h"

#include <array>
#include <cstdio>
#include <optional>

#include "base/check.h"
#include "base/limits.h"

namespace ringdisk::nbd {
namespace {

// What the protocol says of one command.
struct CommandRules {
  uint16_t flags;        // those it may carry
  bool writes;           // refused on a read-only export
  bool has_payload;      // in one of the directions: bounded by the maximum payload size
  bool is_empty;         // offset and length must be zero
  WireError beyond_end;  // the answer to a range past the end
};

std::optional<CommandRules> rules_of(Command command, const RequestTerms& terms) {
  // "valid for all commands", so it is let through wherever it stands
  constexpr uint16_t kAny = kCommandFua;
  const uint16_t df = terms.structured_replies ? kCommandDf : 0;
  switch (command) {
    case Command::kRead:
      return CommandRules{static_cast<uint16_t>(kAny | df), false, true, false,
                          WireError::kInvalid};
    case Command::kWrite:
      return CommandRules{kAny, true, true, false, WireError::kNoSpace};
    case Command::kFlush:
      return CommandRules{kAny, false, false, true, WireError::kInvalid};
    case Command::kTrim:
      return CommandRules{kAny, true, false, false, WireError::kInvalid};
    case Command::kCache:
      // No payload, but we do it by reading, so its length is bounded like a read's.
      return CommandRules{kAny, false, true, false, WireError::kInvalid};
    case Command::kWriteZeroes:
      return CommandRules{kAny | kCommandNoHole | kCommandFastZero, true, false, false,
                          WireError::kNoSpace};
    case Command::kBlockStatus:
      return CommandRules{kAny | kCommandReqOne, false, false, false, WireError::kInvalid};
    case Command::kDisconnect:
      break;
  }
  return std::nullopt;
}

std::string_view name_of(Command command) {
  switch (command) {
    case Command::kRead:
      return "read";
    case Command::kWrite:
      return "write";
    case Command::kDisconnect:
      return "disconnect";
    case Command::kFlush:
      return "flush";
    case Command::kTrim:
      return "trim";
    case Command::kCache:
      return "cache";
    case Command::kWriteZeroes:
      return "write zeroes";
    case Command::kBlockStatus:
      return "block status";
  }
  return "command";
}

std::string describe_flags(std::string_view name, uint16_t flags) {
  std::array<char, 8> hex;
  std::snprintf(hex.data(), hex.size(), "0x%x", static_cast<unsigned>(flags));
  return std::string(name) + " with flags " + hex.data() + ": not all of them go with it here";
}

}  // namespace

Verdict judge_request(const RequestHeader& request, const RequestTerms& terms) {
  bool is_status = request.command == Command::kBlockStatus;
  if (is_status && !terms.block_status) return {Rule::kSelectedContext, WireError::kInvalid};
  std::optional<CommandRules> rules = rules_of(request.command, terms);
  if (!rules) return {Rule::kKnownCommand, WireError::kInvalid};
  if ((request.flags & ~rules->flags) != 0) return {Rule::kFlags, WireError::kInvalid};
  if (rules->is_empty) {
    bool is_empty = request.offset == 0 && request.length == 0;
    return is_empty ? Verdict() : Verdict{Rule::kNoRange, WireError::kInvalid};
  }
  if (rules->writes && terms.read_only) return {Rule::kWritable, WireError::kPermission};
  if (rules->has_payload && request.length > limits::kNbdRequestBytesMax) {
    return {Rule::kLength, WireError::kOverflow};
  }
  if (request.offset > terms.size || request.length > terms.size - request.offset) {
    return {Rule::kInside, rules->beyond_end};
  }
  if (is_status && request.length == 0) return {Rule::kNotEmpty, WireError::kInvalid};
  return {};
}

std::string describe_refusal(Rule broken, const RequestHeader& request, const RequestTerms& terms) {
  const std::string name(name_of(request.command));
  const std::string asked = name + " of " + std::to_string(request.length) + " bytes at " +
                            std::to_string(request.offset);
  switch (broken) {
    case Rule::kNone:
      break;
    case Rule::kKnownCommand:
      return "command " + std::to_string(static_cast<uint16_t>(request.command)) +
             " is not one that this server knows";
    case Rule::kSelectedContext:
      return name + " needs a metadata context, and the handshake selected none";
    case Rule::kFlags:
      return describe_flags(name, request.flags);
    case Rule::kNoRange:
      return asked + ": it takes neither offset nor length";
    case Rule::kWritable:
      return asked + ": the export is read-only";
    case Rule::kLength:
      return asked + " is longer than one request may be, " +
             std::to_string(limits::kNbdRequestBytesMax) + " bytes";
    case Rule::kInside:
      return asked + " goes past the end of the export, which has " + std::to_string(terms.size) +
             " bytes";
    case Rule::kNotEmpty:
      return asked + ": it needs at least one byte";
  }
  UNREACHABLE("no rule is broken");
}

}  // namespace ringdisk::nbd
