// SPDX-License-Identifier: Apache-2.0
// ringdisk bench: how long equal requests to an image take, as qemu-img bench measures it.
#include "jobs/bench.h"

#include <array>
#include <cstdio>

#include "app/bench_calibrate.h"
#include "app/image_command_options.h"
#include "app/images.h"
#include "app/long_job.h"
#include "app/program.h"
#include "app/volume_settings.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr uint64_t kDepthMax = 65536;
constexpr uint64_t kMemoryMax = 4 * limits::kGiB;  // depth times buffer size

constexpr std::array<OptionSpec, 20> kOptions = {{
    {'c', "", "COUNT", "number of requests (default: 75000)"},
    {'d', "", "DEPTH", "requests in flight, over all cores together (default: 64)"},
    {0, "queues", "N", "queues that ask, each on a core of its own (default: one a core)"},
    {'s', "", "SIZE", "bytes of a request (default: 4k)"},
    {'S', "", "STEP", "bytes from one request to the next (default: SIZE)"},
    {'o', "", "OFFSET", "where the first request lies (default: 0)"},
    {'w', "", "", "write instead of reading"},
    {0, "pattern", "BYTE", "what is written (default: 0)"},
    {0, "flush-interval", "N", "with -w: flush after every N requests, on one core"},
    {0, "no-drain", "", "flush beside the requests in flight instead of after them"},
    {0, "calibrate", "", "measure ciphers and crossing between cores instead; no FILE"},
    kImageFormatOption,
    {'t', "", "CACHE", "cache mode (default: writeback)"},
    kQuietOption,
    kProgressFlag,
    kProgressOption,
    {'n', "", "", "accepted; I/O is always asynchronous here"},
    {'i', "", "AIO", "accepted; I/O is always asynchronous here"},
    kForceShareOption,
    kImageOptsOption,
}};

Result<BenchOptions> read_options(const Arguments& arguments, Diagnostics& diagnostics) {
  BenchOptions options;
  ASSIGN_OR_RETURN(options.count,
                   size_argument(arguments, "c", options.count, 0, kBenchCountMax, diagnostics));
  ASSIGN_OR_RETURN(uint64_t depth,
                   size_argument(arguments, "d", options.depth, 1, kDepthMax, diagnostics));
  options.depth = static_cast<uint32_t>(depth);
  ASSIGN_OR_RETURN(options.buffer_bytes, size_argument(arguments, "s", options.buffer_bytes, 1,
                                                       limits::kRequestBytesMax, diagnostics));
  ASSIGN_OR_RETURN(options.step_bytes, size_argument(arguments, "S", options.buffer_bytes, 0,
                                                     kBenchStepMax, diagnostics));
  ASSIGN_OR_RETURN(options.offset, size_argument(arguments, "o", 0, 0, kOffsetMax, diagnostics));
  ASSIGN_OR_RETURN(uint64_t pattern, size_argument(arguments, "pattern", 0, 0, 255, diagnostics));
  options.pattern = static_cast<std::byte>(pattern);
  ASSIGN_OR_RETURN(options.flush_interval,
                   size_argument(arguments, "flush-interval", 0, 1, kBenchCountMax, diagnostics));
  ASSIGN_OR_RETURN(uint64_t queues,
                   size_argument(arguments, "queues", 0, 1, limits::kShardsMax, diagnostics));
  options.queues = static_cast<uint32_t>(queues);
  options.write = arguments.has("w");
  options.drain = !arguments.has("no-drain");
  if (options.flush_interval != 0 && !options.write) {
    return usage_error(diagnostics, "--flush-interval is for writes; add -w");
  }
  if (options.depth * options.buffer_bytes > kMemoryMax) {
    return usage_error(diagnostics, "-d times -s is more than 4 GiB of memory");
  }
  return options;
}

std::string opening_line(const BenchOptions& options) {
  std::string line = "Sending " + std::to_string(options.count) +
                     (options.write ? " write requests, " : " read requests, ") +
                     std::to_string(options.buffer_bytes) + " bytes each, " +
                     std::to_string(options.depth) + " in parallel (starting at offset " +
                     std::to_string(options.offset) + ", step size " +
                     std::to_string(options.step_bytes) + ")\n";
  if (options.flush_interval != 0) {
    line += "Sending flush every " + std::to_string(options.flush_interval) + " requests\n";
  }
  return line;
}

std::string closing_line(Duration elapsed) {
  char line[64];
  snprintf(line, sizeof line, "Run completed in %3.3f seconds.\n",
           std::chrono::duration<double>(elapsed).count());
  return line;
}

// What was measured until a signal came is of use, too.
std::string interrupted_line(Duration elapsed, uint64_t done, uint64_t count) {
  char line[128];
  snprintf(line, sizeof line, "Run interrupted after %3.3f seconds and %llu of %llu requests.\n",
           std::chrono::duration<double>(elapsed).count(), static_cast<unsigned long long>(done),
           static_cast<unsigned long long>(count));
  return line;
}

Task<void> run_job(BenchJob& job, CancelToken token, Duration& elapsed) {
  elapsed = co_await job.run(token);
}

Task<void> bench(Program& program, const Arguments& arguments, DeviceNode& device,
                 const BenchOptions& options) {
  Diagnostics& diagnostics = program.diagnostics();
  if (options.buffer_bytes > device.size().value()) {
    co_await fail(usage_error(diagnostics, device.name() + ": is smaller than one request"));
  }
  ProgressOptions form = co_await progress_options(program, arguments, "bench");
  form.counts_bytes = false;
  const bool is_quiet = arguments.has("q");
  if (!is_quiet) program.console.write(opening_line(options));
  co_await program.console.flush();
  BenchJob job(program.world, device, options);
  ProgressReporter reporter(
      form, [&job] { return job.started(); }, [&options] { return options.count; });
  const Instant began = program.world.clock.now();
  Duration elapsed{0};
  auto body = [&](CancelToken token) { return run_job(job, token, elapsed); };
  Result<void> done = co_await run_long_job(program, reporter, body).result();
  if (!is_quiet && done.ok()) program.console.write(closing_line(elapsed));
  if (!is_quiet && program.stop.is_cancelled()) {
    const Duration so_far = program.world.clock.now() - began;
    program.console.write(interrupted_line(so_far, job.started(), options.count));
  }
  co_await std::move(done);
}

Task<int> run(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  if (arguments.has("calibrate")) {
    const luks::VolumeSettings settings = co_await volume_settings(arguments, diagnostics);
    co_await show_calibration(program, settings.features);
    co_return 0;
  }
  std::string word = co_await single_name(arguments, diagnostics);
  BenchOptions options = co_await read_options(arguments, diagnostics);
  ImageName name = co_await source_argument(arguments, word, diagnostics);
  OpenMode mode;
  mode.read_only = !options.write;
  mode.share = arguments.has("force-share");
  mode.cache = co_await cache_argument(arguments, "t", CacheMode::kWriteback, diagnostics);
  auto body = [&](DeviceNode& device) { return bench(program, arguments, device, options); };
  co_await with_device(program, std::move(name), mode, body);
  co_return 0;
}

}  // namespace

Command bench_command() {
  Command command;
  command.name = "bench";
  command.summary = "measure requests to an image";
  command.synopsis =
      "[-c COUNT] [-d DEPTH] [-s SIZE] [-S STEP] [-o OFFSET] [-w] [-t CACHE]\n"
      "                [--queues N] [--threads N] FILE | --calibrate";
  command.text =
      "Sends COUNT requests of SIZE bytes to the image FILE, DEPTH of them in flight at a time,\n"
      "spread over the cores, and prints how long it took. Each lies STEP bytes after the one\n"
      "before; one that would cross the end lies at the beginning. -w overwrites the image.\n"
      "With --queues 1 one core asks, as a disk with one queue does; others may still help it.\n"
      "--calibrate shows what ciphers cost here a core, and from which size on idle cores help;\n"
      "--cpu-features bounds the kernels it tries.\n";
  command.examples =
      "  ringdisk bench -c 100000 -d 64 disk.qcow2\n"
      "  ringdisk bench -w -d 1 -s 64k -t none --flush-interval=100 scratch.qcow2\n";
  command.options = kOptions;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
