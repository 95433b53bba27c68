// SPDX-License-Identifier: Apache-2.0
// --cpu-features and --kdf-….
#include "app/volume_settings.h"

namespace ringdisk {
namespace {

Result<CpuFeatures> cpu_features(const Arguments& arguments, Diagnostics& diagnostics) {
  const std::string name = arguments.value("cpu-features").value_or("auto");
  Result<CpuFeatures> features = CpuFeatures::choose(name, CpuFeatures::detect());
  if (features.ok()) return features;
  const bool is_unknown = features.error().kind == ErrorKind::kInvalid;
  return usage_error(diagnostics, "--cpu-features " + name +
                                      (is_unknown ? " is not known; there are: auto, none, aesni, "
                                                    "vaes256, vaes512"
                                                  : " is more than this machine has"));
}

}  // namespace

Result<luks::VolumeSettings> volume_settings(const Arguments& arguments, Diagnostics& diagnostics) {
  luks::VolumeSettings settings;
  ASSIGN_OR_RETURN(settings.features, cpu_features(arguments, diagnostics));
  Options limits;
  for (std::string_view key : {luks::kKdfIterationsMax, luks::kKdfMemoryMax, luks::kKdfWorkMax}) {
    if (std::optional<std::string> value = arguments.value(key)) {
      limits.set(std::string(key), std::move(*value));
    }
  }
  ASSIGN_OR_RETURN(settings.kdf_limits, take_kdf_limits(limits, settings.kdf_limits, diagnostics));
  return settings;
}

}  // namespace ringdisk
