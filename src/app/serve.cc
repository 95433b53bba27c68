// SPDX-License-Identifier: Apache-2.0
// ringdisk serve: images as NBD exports, until a signal says stop.
#include <algorithm>
#include <array>

#include "app/images.h"
#include "app/program.h"
#include "async/on_cancel.h"
#include "async/scope.h"
#include "base/diagnostics.h"
#include "base/log.h"
#include "control/service_notice.h"
#include "nbd/server.h"
#include "runtime/blocking_pool.h"
#include "runtime/socket_network.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 12> kOptions = {{
    {0, "nbd", "ADDRESS", "listen there: unix:PATH or tcp:HOST:PORT (repeatable)"},
    {0, "name", "NAME", "name of an export; one for each image, in order"},
    {'B', "bitmap", "NAME", "show a persistent dirty bitmap of the images (repeatable)"},
    {0, "read-only", "", "refuse writes, and lock the images for reading only"},
    {0, "cache", "MODE", "none, writeback (default), writethrough, directsync or unsafe"},
    {'f', "", "FMT", "format of the images (default: found by their first bytes)"},
    {'t', "", "MODE", "the same as --cache"},
    {0, "detect-zeroes", "MODE", "written zeros: off (default), on or unmap (are given back)"},
    {0, "discard", "MODE", "unmap (default): trims give space back; ignore: they do nothing"},
    {0, "pid-file", "FILE", "write the process id there once ready"},
    {'U', "force-share", "", "do not insist on locks (needs --read-only)"},
    {0, "image-opts", "", "images are descriptions: driver=qcow2,file.filename=x"},
}};

struct ServeRequest {
  std::vector<ImageName> images;
  std::vector<std::string> export_names;  // one for each image
  std::vector<std::string> bitmaps;       // of every image
  nbd::ServerOptions server;
  OpenMode mode;
  std::string pid_file;
};

std::string base_name(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

// One image is also what a client gets that names no export.
Result<void> name_exports(const Arguments& arguments, ServeRequest& request,
                          Diagnostics& diagnostics) {
  request.export_names = arguments.values("name");
  const size_t names = request.export_names.size(), images = request.images.size();
  if (names != 0 && names != images) {
    return usage_error(diagnostics, std::to_string(images) + " images and " +
                                        std::to_string(names) +
                                        " --name: give each image one, in order, or give none");
  }
  if (names == 0 && images == 1) request.export_names.emplace_back();
  for (size_t i = request.export_names.size(); i < images; ++i) {
    request.export_names.push_back(base_name(request.images[i].text()));
  }
  for (size_t i = 0; i < request.export_names.size(); ++i) {
    const std::string& name = request.export_names[i];
    if (name.size() > limits::kNbdNameBytesMax) {
      return usage_error(diagnostics, "an export's name has at most 4096 bytes");
    }
    for (size_t other = 0; other < i; ++other) {
      if (request.export_names[other] != name) continue;
      return usage_error(diagnostics,
                         "two exports would be called '" + name + "'; tell them apart with --name");
    }
  }
  return {};
}

Result<ServeRequest> read_arguments(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  ServeRequest request;
  if (arguments.names().empty()) return usage_error(diagnostics, "expecting an image to serve");
  for (const std::string& word : arguments.names()) {
    ASSIGN_OR_RETURN(ImageName name, source_argument(arguments, word, diagnostics));
    request.images.push_back(std::move(name));
  }
  for (const std::string& text : arguments.values("nbd")) {
    ASSIGN_OR_RETURN(Address address, parse_address(text, diagnostics));
    request.server.addresses.push_back(std::move(address));
  }
  if (request.server.addresses.empty()) {
    return usage_error(diagnostics, "say where to listen: --nbd unix:PATH or --nbd tcp:HOST:PORT");
  }
  RETURN_IF_ERROR(name_exports(arguments, request, diagnostics));
  request.mode.read_only = arguments.has("read-only");
  request.mode.share = arguments.has("force-share");
  if (request.mode.share && !request.mode.read_only) {
    return usage_error(diagnostics, "-U needs --read-only");
  }
  const std::string_view cache_key = arguments.has("cache") ? "cache" : "t";
  ASSIGN_OR_RETURN(request.mode.cache,
                   cache_argument(arguments, cache_key, CacheMode::kWriteback, diagnostics));
  for (const std::string& bitmap : arguments.values("bitmap")) {
    const auto& known = request.bitmaps;
    if (std::find(known.begin(), known.end(), bitmap) == known.end()) {
      request.bitmaps.push_back(bitmap);
    }
  }
  ASSIGN_OR_RETURN(request.mode.policy,
                   make_policy(arguments.value("detect-zeroes"), arguments.value("discard"),
                               DevicePolicy(), diagnostics));
  request.pid_file = arguments.value("pid-file").value_or("");
  return request;
}

using Bitmap = std::shared_ptr<const DirtyBits>;

Task<Bitmap> find_own_bitmap(Program& program, DeviceNode& device, const std::string& name) {
  Result<Bitmap> bits = co_await device.format().find_bitmap(name).result();
  if (!bits.ok() && bits.error().kind == ErrorKind::kUnsupported && bits.error().note == 0) {
    co_return program.diagnostics().explain(
        bits.error(), device.id(),
        "Format driver '" + std::string(device.format().driver()) + "' does not support bitmaps");
  }
  co_return std::move(bits);
}

// Of the image itself, else of the nearest one below that has it, as qemu-nbd -B looks for it. What
// a smaller disk's bitmap does not reach it says nothing of, so that one is refused.
Task<Bitmap> find_bitmap(Program& program, DeviceNode& device, const std::string& name) {
  Result<Bitmap> bits = co_await find_own_bitmap(program, device, name).result();
  for (DeviceNode* below = device.backing().get(); below && !bits.ok();
       below = below->backing().get()) {
    const ErrorKind kind = bits.error().kind;
    if (kind != ErrorKind::kNotFound && kind != ErrorKind::kUnsupported) break;
    Result<Bitmap> found = co_await find_own_bitmap(program, *below, name).result();
    const bool is_absent = !found.ok() && (found.error().kind == ErrorKind::kNotFound ||
                                           found.error().kind == ErrorKind::kUnsupported);
    if (is_absent) continue;
    bits = std::move(found);
    if (bits.ok() && bits.value()->size() < device.size()) {
      co_return program.diagnostics().explain(
          Error::of(ErrorKind::kUnsupported, "serve"), below->id(),
          "bitmap '" + name + "' is of a smaller disk than the one to be served");
    }
  }
  co_return std::move(bits);
}

Task<std::vector<nbd::ExportOptions>> make_exports(Program& program, const ServeRequest& request,
                                                   const Devices& devices) {
  std::vector<nbd::ExportOptions> exports;
  for (size_t i = 0; i < devices.size(); ++i) {
    nbd::ExportOptions options;
    options.name = request.export_names[i];
    options.device = devices[i];
    options.read_only = request.mode.read_only;
    for (const std::string& name : request.bitmaps) {
      nbd::ExportBitmap bitmap;
      bitmap.name = name;
      bitmap.bits = co_await find_bitmap(program, *devices[i], name);
      options.bitmaps.push_back(std::move(bitmap));
    }
    exports.push_back(std::move(options));
  }
  co_return std::move(exports);
}

Task<void> notify(Program& program, std::string_view state) {
  auto send = [&](Blocking token) {
    return notify_service(token, program.environment.notify_socket, state);
  };
  Result<void> sent = co_await run_blocking(program.world.blocking, send).result();
  if (!sent.ok()) {
    program.world.log.warning("the service manager was not told " + std::string(state) + ": " +
                              program.diagnostics().describe(sent.error()));
  }
}

Task<void> announce(Program& program, const ServeRequest& request, const nbd::Server& server,
                    PidFile& pid_file) {
  if (!request.pid_file.empty()) {
    auto write = [&](Blocking token) {
      return pid_file.write(token, request.pid_file, program.diagnostics());
    };
    co_await run_blocking(program.world.blocking, write);
  }
  for (const Address& address : server.addresses()) {
    program.console.write("ringdisk: ready on " + text_of(address) + "\n");
  }
  co_await program.console.flush();
  co_await notify(program, "READY=1");
}

// The service manager hears of a stop when it comes, not when it is done.
Task<void> serve_until_stopped(Scope& scope, Program& program, nbd::Server& server) {
  auto tell = [&scope, &program] { scope.spawn(notify(program, "STOPPING=1")); };
  OnCancel on_stop(program.stop.token(), tell);
  co_await server.run(program.stop.token(), program.hurry.token());
}

// A user who waits wants to know for what.
void tell_of_waiting(Program& program, uint32_t clients) {
  const bool is_one = clients == 1;
  program.console.remark("ringdisk: stopping: " + std::to_string(clients) +
                         (is_one ? " client has" : " clients have") +
                         " requests under way or replies not taken yet; cut off after " +
                         std::to_string(limits::kNbdDrainSeconds) +
                         " seconds, or at once at a second signal\n");
}

Task<void> serve(Program& program, ServeRequest& request, const Devices& devices) {
  request.server.on_waiting = [&program](uint32_t clients) { tell_of_waiting(program, clients); };
  std::vector<nbd::ExportOptions> exports = co_await make_exports(program, request, devices);
  nbd::Server server(program.world, request.server, std::move(exports));
  co_await server.listen();
  PidFile pid_file;
  co_await announce(program, request, server, pid_file);
  co_await with_scope(&serve_until_stopped, program, server);
}

Task<void> open_and_serve(Program& program, ServeRequest& request, Devices& devices) {
  co_await open_devices(program, request.images, request.mode, devices);
  co_await serve(program, request, devices);
}

Task<int> run(Program& program, const Arguments& arguments) {
  ServeRequest request = co_await read_arguments(program, arguments);
  Devices devices;
  Result<void> served = co_await open_and_serve(program, request, devices).result();
  Result<void> closed = co_await close_devices(devices).result();
  co_await std::move(served);
  co_await std::move(closed);
  co_return 0;
}

}  // namespace

Command serve_command() {
  Command command;
  command.name = "serve";
  command.summary = "serve images over NBD";
  command.synopsis =
      "IMAGE [IMAGE ...] --nbd ADDRESS [--name NAME] [--bitmap NAME] [--read-only]\n"
      "                [--cache MODE] [--detect-zeroes MODE] [--discard MODE] [--pid-file FILE]\n"
      "                [-f FMT]";
  command.text =
      "Serves each IMAGE as an NBD export on all cores until SIGTERM or SIGINT; then finishes the\n"
      "requests under way, flushes and closes everything. Clients that do not take their replies\n"
      "are cut off after 10 seconds, or at a second signal. When clients can connect, a line\n"
      "'ringdisk: ready on ADDRESS' appears on standard output and the service manager is told\n"
      "(sd_notify). A single image is the export with the empty name; several are called by their\n"
      "file names, or by --name, one for each, in order. --bitmap NAME shows a dirty bitmap that "
      "each\n"
      "image has as the metadata context 'qemu:dirty-bitmap:NAME'; where it records changes and "
      "the\n"
      "image is served for writing, what clients change shows at once.\n";
  command.examples =
      "  ringdisk serve disk.qcow2 --nbd unix:/run/disk.sock\n"
      "  ringdisk serve --read-only a.qcow2 b.raw --nbd tcp:127.0.0.1:10809 --name a --name b\n";
  command.options = kOptions;
  command.stop_way = StopWay::kDrains;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
