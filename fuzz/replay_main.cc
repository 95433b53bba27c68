// SPDX-License-Identifier: Apache-2.0
//
// main() of every fuzzer outside the asan variant: runs the fuzzer's function once on the empty
// input and once on each file below the folders (or files) named on the command line, in order of
// name. So every seed and every input that once crashed is a test with any compiler and sanitizer,
// and a crash is debugged with an ordinary debugger:
//
//   build/debug/header_fuzz build/fuzz-findings/header_fuzz/crash-1234
//
// A fuzzer without a single input file fails: it would test nothing. This program is a developer's
// tool and the only text it prints goes to the terminal of a test run.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

namespace {

namespace fs = std::filesystem;

// The regular files below `root` (or `root` itself), sorted, so that every run has the same order.
// Folders that do not exist hold nothing.
std::vector<fs::path> files_below(const fs::path& root) {
  std::error_code error;
  std::vector<fs::path> files;
  if (fs::is_regular_file(root, error)) files.push_back(root);
  fs::recursive_directory_iterator it(root, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const bool hidden = it->path().filename().string().starts_with('.');
    if (!hidden && it->is_regular_file(error)) files.push_back(it->path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool replay(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (stream.bad() || !stream.is_open()) {
    std::fprintf(stderr, "cannot read %s\n", file.c_str());
    return false;
  }
  // Said before the run, so that a crash is the fault of the last file named.
  std::printf("replay %s (%zu bytes)\n", file.c_str(), bytes.size());
  std::fflush(stdout);
  // An exact copy on the heap: one byte read too far is seen by AddressSanitizer.
  const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const uint8_t nothing = 0;
  LLVMFuzzerTestOneInput(&nothing, 0);
  size_t replayed = 0;
  bool readable = true;
  for (int i = 1; i < argc; ++i) {
    for (const fs::path& file : files_below(argv[i])) {
      readable = replay(file) && readable;
      ++replayed;
    }
  }
  if (replayed == 0) {
    std::fprintf(stderr, "no input files in '%s': put at least one seed there\n",
                 argc > 1 ? argv[1] : "(no folder named)");
    return 1;
  }
  std::printf("replayed %zu inputs\n", replayed);
  return readable ? 0 : 1;
}
