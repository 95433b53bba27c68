// SPDX-License-Identifier: Apache-2.0
// Wording of `info`.
#include "app/info_text.h"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <ctime>

#include "block/options.h"

namespace ringdisk {
namespace {

constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;

std::string local_time(uint64_t seconds) {
  const auto moment = static_cast<time_t>(seconds);
  tm parts{};
  localtime_r(&moment, &parts);
  char text[64];
  const size_t length = strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return std::string(text, length);
}

// "0000:01:02.345"
std::string machine_time(uint64_t nanoseconds) {
  const uint64_t seconds = nanoseconds / kNanosecondsPerSecond;
  char text[64];
  snprintf(text, sizeof text, "%04" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64,
           seconds / 3600, seconds / 60 % 60, seconds % 60, nanoseconds / 1'000'000 % 1000);
  return text;
}

std::string padded(std::string text, size_t width, bool to_the_right) {
  if (text.size() >= width) return text;
  const std::string spaces(width - text.size(), ' ');
  return to_the_right ? spaces + text : text + spaces;
}

// The columns of qemu-img 10.
std::string snapshot_row(const std::array<std::string, 6>& cells) {
  return padded(cells[0], 7, false) + " " + padded(cells[1], 16, false) + " " +
         padded(cells[2], 8, true) + " " + padded(cells[3], 19, true) + " " +
         padded(cells[4], 15, true) + " " + padded(cells[5], 10, true) + "\n";
}

std::string snapshot_line(const SnapshotDescription& snapshot) {
  const std::string count = snapshot.icount ? std::to_string(*snapshot.icount) : "--";
  return snapshot_row({snapshot.id, snapshot.name, human_size(snapshot.vm_state_size),
                       local_time(snapshot.date_seconds),
                       machine_time(snapshot.vm_clock_nanoseconds), count});
}

std::string value_text(const DescribedField& field) {
  switch (field.kind) {
    case DescribedField::Kind::kText:
      return field.text;
    case DescribedField::Kind::kNumber:
      return std::to_string(field.number);
    case DescribedField::Kind::kBool:
      return field.number ? "true" : "false";
    case DescribedField::Kind::kObject:
    case DescribedField::Kind::kList:
      return "";
  }
  UNREACHABLE("a described field has five kinds");
}

std::string spaced(std::string key) {
  for (char& letter : key) {
    if (letter == '-') letter = ' ';
  }
  return key;
}

// Each on lines of its own, those of a list under their numbers: "[0]".
std::string specific_lines(const std::vector<DescribedField>& fields, size_t depth,
                           bool is_list = false) {
  using Kind = DescribedField::Kind;
  std::string text;
  for (size_t i = 0; i < fields.size(); ++i) {
    const DescribedField& field = fields[i];
    const std::string key = is_list ? "[" + std::to_string(i) + "]" : spaced(field.key);
    text += std::string(4 * depth, ' ') + key + ":";
    if (field.kind == Kind::kObject || field.kind == Kind::kList) {
      text += "\n" + specific_lines(field.children, depth + 1, field.kind == Kind::kList);
    } else {
      text += " " + value_text(field) + "\n";
    }
  }
  return text;
}

void field_as_json(const DescribedField& field, JsonText& json) {
  switch (field.kind) {
    case DescribedField::Kind::kText:
      json.text(field.text);
      break;
    case DescribedField::Kind::kNumber:
      json.number(field.number);
      break;
    case DescribedField::Kind::kBool:
      json.boolean(field.number != 0);
      break;
    case DescribedField::Kind::kObject:
      json.begin_object();
      for (const DescribedField& child : field.children) {
        json.key(child.key);
        field_as_json(child, json);
      }
      json.end_object();
      break;
    case DescribedField::Kind::kList:
      json.begin_array();
      for (const DescribedField& child : field.children) field_as_json(child, json);
      json.end_array();
      break;
  }
}

void snapshots_as_json(const std::vector<SnapshotDescription>& snapshots, JsonText& json) {
  json.begin_array();
  for (const SnapshotDescription& snapshot : snapshots) {
    json.begin_object();
    if (snapshot.icount) json.key("icount"), json.number(*snapshot.icount);
    json.key("vm-clock-nsec");
    json.number(snapshot.vm_clock_nanoseconds % kNanosecondsPerSecond);
    json.key("name"), json.text(snapshot.name);
    json.key("date-sec"), json.number(snapshot.date_seconds);
    json.key("date-nsec"), json.number(snapshot.date_nanoseconds);
    json.key("vm-clock-sec");
    json.number(snapshot.vm_clock_nanoseconds / kNanosecondsPerSecond);
    json.key("id"), json.text(snapshot.id);
    json.key("vm-state-size"), json.number(snapshot.vm_state_size);
    json.end_object();
  }
  json.end_array();
}

void specific_as_json(const ImageReport& report, JsonText& json) {
  json.key("format-specific");
  json.begin_object();
  json.key("type"), json.text(report.format);
  json.key("data");
  json.begin_object();
  for (const DescribedField& field : report.description.specific) {
    json.key(field.key);
    field_as_json(field, json);
  }
  json.end_object();
  json.end_object();
}

}  // namespace

std::string snapshots_as_text(const std::vector<SnapshotDescription>& snapshots) {
  if (snapshots.empty()) return "";
  std::string text = "Snapshot list:\n";
  text += snapshot_row({"ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"});
  for (const SnapshotDescription& snapshot : snapshots) text += snapshot_line(snapshot);
  return text;
}

std::string info_as_text(const ImageReport& report) {
  const ImageDescription& image = report.description;
  std::string text = "image: " + report.filename + "\nfile format: " + report.format + "\n";
  const uint64_t size = image.virtual_size.value();
  text += "virtual size: " + human_size(size) + " (" + std::to_string(size) + " bytes)\n";
  text +=
      "disk size: " + (report.disk_size ? human_size(report.disk_size->value()) : "unavailable") +
      "\n";
  if (image.encrypted) text += "encrypted: yes\n";
  if (image.cluster_size) {
    text += "cluster_size: " + std::to_string(image.cluster_size->value()) + "\n";
  }
  if (image.dirty) text += "cleanly shut down: no\n";
  if (!image.backing_name.empty()) {
    text += "backing file: " + image.backing_name;
    if (image.backing_name != report.full_backing_name) {
      text += " (actual path: " + report.full_backing_name + ")";
    }
    text += "\n";
    if (!image.backing_format.empty()) {
      text += "backing file format: " + image.backing_format + "\n";
    }
  }
  text += snapshots_as_text(image.snapshots);
  if (!image.specific.empty()) {
    text += "Format specific information:\n" + specific_lines(image.specific, 1);
  }
  return text;
}

void info_as_json(const ImageReport& report, JsonText& json) {
  const ImageDescription& image = report.description;
  const bool has_backing = !image.backing_name.empty();
  json.begin_object();
  if (image.compressed) json.key("compressed"), json.boolean(true);
  if (has_backing && !image.backing_format.empty()) {
    json.key("backing-filename-format"), json.text(image.backing_format);
  }
  if (!image.snapshots.empty()) json.key("snapshots"), snapshots_as_json(image.snapshots, json);
  json.key("virtual-size"), json.number(image.virtual_size.value());
  json.key("filename"), json.text(report.filename);
  if (image.cluster_size) json.key("cluster-size"), json.number(image.cluster_size->value());
  json.key("format"), json.text(report.format);
  if (report.disk_size) json.key("actual-size"), json.number(report.disk_size->value());
  if (!image.specific.empty()) specific_as_json(report, json);
  if (has_backing) json.key("full-backing-filename"), json.text(report.full_backing_name);
  if (image.encrypted) json.key("encrypted"), json.boolean(true);
  if (has_backing) json.key("backing-filename"), json.text(image.backing_name);
  json.key("dirty-flag"), json.boolean(image.dirty);
  json.end_object();
}

}  // namespace ringdisk
