package dcgm

import "strings"

// Field is a quantity of a device, in the unit that its constant names. Ratios are from 0 to 1.
type Field int

const (
	// Ratios.
	UtilizationGPU Field = iota
	UtilizationEncoder
	UtilizationDecoder
	SMActivity
	SMOccupancy
	PipeTensor
	PipeFP64
	PipeFP32
	PipeFP16
	DRAMActivity
	FanSpeed
	// Bytes.
	MemoryUsed
	MemoryTotal
	MemoryFree
	MemoryReserved
	BAR1Used
	BAR1Total
	// Joules since the driver was loaded, and watts.
	Energy
	Power
	PowerLimit
	// Degrees Celsius.
	TemperatureGPU
	TemperatureMemory
	// Hertz.
	ClockSM
	ClockMemory
	ClockVideo
	// Seconds since the driver was loaded in which clocks were held back.
	ThrottlePower
	ThrottleThermal
	ThrottleSyncBoost
	// ClockReasons is a bit mask, the same as NVML's nvmlClocksEventReasons.
	ClockReasons
	// Counts of errors: of memory since the driver was loaded, and of XIDs, which have the XID as Code, since the exporter began.
	ECCCorrected
	ECCUncorrected
	PCIeReplays
	XIDErrors
	// LastXID is the code of the last XID error, 0 if there was none.
	LastXID
	// Rows that were remapped, and 1 where it is pending or has failed.
	RowsCorrected
	RowsUncorrected
	RowsPending
	RowsFailed
	// Health is 0 (healthy), 10 (warning) or 20 (failure), by the part that was watched as Code.
	Health
)

// field says how to read a metric of dcgm-exporter.
type field struct {
	Field
	// scale turns DCGM's unit into that of the Field.
	scale float64
	// code is the label that tells Values of one Field apart.
	code string
	// share is whether rows with a pod beside one without are the pod's part of it, as --kubernetes-virtual-gpus makes them.
	share bool
	// unclear marks a name that has been a percentage in one version and a ratio in the next.
	unclear bool
}

const (
	mebi    = 1 << 20
	mega    = 1e6
	percent = 1e-2
	nano    = 1e-9
	milli   = 1e-3
)

// metrics are those of dcgm-exporter by their names, which are DCGM's names of fields: those until DCGM 4.5, those that 4.6 gave to the same
// fields, and the fields in base units that came with 4.7. The scale is the field's in DCGM's reference, and not what a name
// seems to say: power is called usage, and violations were said to be in microseconds for years while they are in nanoseconds.
//
// PROF_PCIE_TX_BYTES and PROF_NVLINK_TX_BYTES are missing: they are bytes per second, whatever they are called, and no counters.
var metrics = func() map[string]field {
	m := map[string]field{}
	add := func(f field, names ...string) {
		for _, name := range names {
			m["DCGM_FI_"+name] = f
		}
	}
	one := func(f Field) field { return field{Field: f, scale: 1} }
	scaled := func(f Field, scale float64) field { return field{Field: f, scale: scale} }

	add(field{Field: UtilizationGPU, scale: percent, share: true}, "DEV_GPU_UTIL")
	add(field{Field: UtilizationGPU, scale: 1, share: true, unclear: true}, "DEV_GPU_UTIL_RATIO")
	add(scaled(UtilizationEncoder, percent), "DEV_ENC_UTIL")
	add(one(UtilizationEncoder), "DEV_ENC_UTIL_RATIO")
	add(scaled(UtilizationDecoder, percent), "DEV_DEC_UTIL")
	add(one(UtilizationDecoder), "DEV_DEC_UTIL_RATIO")
	add(one(SMActivity), "PROF_SM_ACTIVE", "PROF_SM_UTIL_RATIO")
	add(one(SMOccupancy), "PROF_SM_OCCUPANCY", "PROF_SM_OCCUPANCY_RATIO")
	add(one(PipeTensor), "PROF_PIPE_TENSOR_ACTIVE", "PROF_TENSOR_UTIL_RATIO")
	add(one(PipeFP64), "PROF_PIPE_FP64_ACTIVE", "PROF_FP64_UTIL_RATIO")
	add(one(PipeFP32), "PROF_PIPE_FP32_ACTIVE", "PROF_FP32_UTIL_RATIO")
	add(one(PipeFP16), "PROF_PIPE_FP16_ACTIVE", "PROF_FP16_UTIL_RATIO")
	add(one(DRAMActivity), "PROF_DRAM_ACTIVE", "PROF_DRAM_UTIL_RATIO")
	add(scaled(FanSpeed, percent), "DEV_FAN_SPEED")
	add(one(FanSpeed), "DEV_FAN_SPEED_RATIO")

	add(field{Field: MemoryUsed, scale: mebi, share: true}, "DEV_FB_USED")
	add(field{Field: MemoryUsed, scale: 1, share: true}, "DEV_FB_USED_BYTES")
	add(scaled(MemoryTotal, mebi), "DEV_FB_TOTAL")
	add(one(MemoryTotal), "DEV_FB_CAPACITY_BYTES")
	add(scaled(MemoryFree, mebi), "DEV_FB_FREE")
	add(one(MemoryFree), "DEV_FB_FREE_BYTES")
	add(scaled(MemoryReserved, mebi), "DEV_FB_RESERVED")
	add(one(MemoryReserved), "DEV_FB_RESERVED_BYTES")
	add(scaled(BAR1Used, mebi), "DEV_BAR1_USED")
	add(one(BAR1Used), "DEV_BAR1_USED_BYTES")
	add(scaled(BAR1Total, mebi), "DEV_BAR1_TOTAL")
	add(one(BAR1Total), "DEV_BAR1_CAPACITY_BYTES")

	add(scaled(Energy, milli), "DEV_TOTAL_ENERGY_CONSUMPTION")
	add(one(Energy), "DEV_GPU_ENERGY_JOULES_TOTAL")
	add(one(Power), "DEV_POWER_USAGE", "DEV_BOARD_POWER_WATTS")
	add(one(PowerLimit), "DEV_ENFORCED_POWER_LIMIT", "DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS")
	add(one(TemperatureGPU), "DEV_GPU_TEMP", "DEV_GPU_TEMP_CELSIUS")
	add(one(TemperatureMemory), "DEV_MEMORY_TEMP", "DEV_MEMORY_TEMP_CELSIUS")
	add(scaled(ClockSM, mega), "DEV_SM_CLOCK")
	add(one(ClockSM), "DEV_SM_CLOCK_HERTZ")
	add(scaled(ClockMemory, mega), "DEV_MEM_CLOCK")
	add(one(ClockMemory), "DEV_MEMORY_CLOCK_HERTZ")
	add(scaled(ClockVideo, mega), "DEV_VIDEO_CLOCK")
	add(one(ClockVideo), "DEV_VIDEO_CLOCK_HERTZ")

	for f, reason := range map[Field]string{ThrottlePower: "POWER", ThrottleThermal: "THERMAL", ThrottleSyncBoost: "SYNC_BOOST"} {
		add(scaled(f, nano), "DEV_"+reason+"_VIOLATION")
		add(one(f), "DEV_GPU_"+reason+"_THROTTLE_SECONDS_TOTAL")
	}
	add(one(ClockReasons), "DEV_CLOCK_THROTTLE_REASONS", "DEV_CLOCKS_EVENT_REASONS")
	add(one(ECCCorrected), "DEV_ECC_SBE_VOL_TOTAL")
	add(one(ECCUncorrected), "DEV_ECC_DBE_VOL_TOTAL")
	add(one(PCIeReplays), "DEV_PCIE_REPLAY_COUNTER", "DEV_PCIE_REPLAY_TOTAL")
	add(one(LastXID), "DEV_XID_ERRORS", "DEV_XID_ERROR")
	add(one(RowsCorrected), "DEV_CORRECTABLE_REMAPPED_ROWS", "DEV_ROW_REMAP_CORRECTABLE_TOTAL")
	add(one(RowsUncorrected), "DEV_UNCORRECTABLE_REMAPPED_ROWS", "DEV_ROW_REMAP_UNCORRECTABLE_TOTAL")
	add(one(RowsPending), "DEV_ROW_REMAP_PENDING")
	add(one(RowsFailed), "DEV_ROW_REMAP_FAILURE", "DEV_ROW_REMAP_FAILED")

	// The exporter's own. Its count of XIDs in a window is no counter.
	m["DCGM_EXP_XID_ERRORS_TOTAL"] = field{Field: XIDErrors, scale: 1, code: "xid"}
	m["DCGM_EXP_GPU_HEALTH_STATUS"] = field{Field: Health, scale: 1, code: "health_watch"}
	return m
}()

// scaleOf returns the scale of a name that has had two, by what the page says of it: its help, or else its values. A percentage is a whole
// number, so that only the value 1 leaves it open, alone on its page.
func scaleOf(help string, values []float64) (float64, bool) {
	help = strings.ToLower(help)
	switch {
	case strings.Contains(help, "%"), strings.Contains(help, "percent"):
		return percent, true
	case strings.Contains(help, "ratio"), strings.Contains(help, "fraction"), strings.Contains(help, "0 to 1"), strings.Contains(help, "0.0"):
		return 1, true
	}
	zeros := true
	for _, v := range values {
		switch {
		case v > 1:
			return percent, true
		case v > 0 && v < 1:
			return 1, true
		}
		zeros = zeros && v == 0
	}
	return 1, zeros
}
