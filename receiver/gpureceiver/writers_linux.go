package gpureceiver

import (
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
)

type (
	builder = metadata.MetricsBuilder
	options = []metadata.MetricAttributeOption
	writer  = func(mb *builder, at pcommon.Timestamp, o *observation, with options)
)

// writers hand an observation to the builder of its metric.
var writers = map[string]writer{
	"gpu.allocation": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuAllocationDataPoint(at, int64(o.value), with...)
	},
	"gpu.clock.frequency": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuClockFrequencyDataPoint(at, int64(o.value), metadata.MapAttributeGpuClockDomain[o.part], with...)
	},
	"gpu.clock.throttle.active": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuClockThrottleActiveDataPoint(at, int64(o.value), metadata.MapAttributeGpuThrottleReason[o.part], with...)
	},
	"gpu.clock.throttle.time": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuClockThrottleTimeDataPoint(at, o.value, metadata.MapAttributeGpuThrottleReason[o.part], with...)
	},
	"gpu.cuda.kernel.launch.calls": func(mb *builder, at pcommon.Timestamp, o *observation, _ options) {
		mb.RecordGpuCudaKernelLaunchCallsDataPoint(at, int64(o.value))
	},
	"gpu.cuda.memory.allocations": func(mb *builder, at pcommon.Timestamp, o *observation, _ options) {
		mb.RecordGpuCudaMemoryAllocationsDataPoint(at, int64(o.value))
	},
	"gpu.cuda.memory.copies": func(mb *builder, at pcommon.Timestamp, o *observation, _ options) {
		mb.RecordGpuCudaMemoryCopiesDataPoint(at, int64(o.value), metadata.MapAttributeCudaMemcpyKind[o.part])
	},
	"gpu.cuda.synchronize.calls": func(mb *builder, at pcommon.Timestamp, o *observation, _ options) {
		mb.RecordGpuCudaSynchronizeCallsDataPoint(at, int64(o.value), metadata.MapAttributeCudaSyncKind[o.part])
	},
	"gpu.memory.bandwidth.utilization": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuMemoryBandwidthUtilizationDataPoint(at, o.value, with...)
	},
	"gpu.memory.bar1.limit": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuMemoryBar1LimitDataPoint(at, int64(o.value), with...)
	},
	"gpu.memory.bar1.usage": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuMemoryBar1UsageDataPoint(at, int64(o.value), with...)
	},
	"gpu.nvlink.io": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuNvlinkIoDataPoint(at, int64(o.value), metadata.MapAttributeNetworkIoDirection[o.part], with...)
	},
	"gpu.pipe.activity": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuPipeActivityDataPoint(at, o.value, metadata.MapAttributeGpuPipe[o.part], with...)
	},
	"gpu.power.limit": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuPowerLimitDataPoint(at, o.value, with...)
	},
	"gpu.process.memory.usage": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuProcessMemoryUsageDataPoint(at, int64(o.value), with...)
	},
	"gpu.process.utilization": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuProcessUtilizationDataPoint(at, o.value, metadata.MapAttributeGpuEngine[o.part], with...)
	},
	"gpu.rows.failed": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuRowsFailedDataPoint(at, int64(o.value), with...)
	},
	"gpu.rows.pending": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuRowsPendingDataPoint(at, int64(o.value), with...)
	},
	"gpu.rows.remapped": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuRowsRemappedDataPoint(at, int64(o.value), metadata.MapAttributeGpuRowsCause[o.part], with...)
	},
	"gpu.sm.activity": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuSmActivityDataPoint(at, o.value, with...)
	},
	"gpu.sm.occupancy": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuSmOccupancyDataPoint(at, o.value, with...)
	},
	"gpu.xid.errors": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordGpuXidErrorsDataPoint(at, int64(o.value), xidCode(o.part), with...)
	},
	"hw.energy": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwEnergyDataPoint(at, o.value, with...)
	},
	"hw.errors": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwErrorsDataPoint(at, int64(o.value), metadata.MapAttributeErrorType[o.part], with...)
	},
	"hw.fan.speed_ratio": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwFanSpeedRatioDataPoint(at, o.value, with...)
	},
	"hw.gpu.io": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwGpuIoDataPoint(at, int64(o.value), metadata.MapAttributeNetworkIoDirection[o.part], with...)
	},
	"hw.gpu.memory.limit": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwGpuMemoryLimitDataPoint(at, int64(o.value), with...)
	},
	"hw.gpu.memory.usage": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwGpuMemoryUsageDataPoint(at, int64(o.value), with...)
	},
	"hw.gpu.memory.utilization": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwGpuMemoryUtilizationDataPoint(at, o.value, with...)
	},
	"hw.gpu.utilization": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwGpuUtilizationDataPoint(at, o.value, metadata.MapAttributeHwGpuTask[o.part], with...)
	},
	"hw.power": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwPowerDataPoint(at, o.value, with...)
	},
	"hw.status": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwStatusDataPoint(at, int64(o.value), metadata.MapAttributeHwState[o.part], with...)
	},
	"hw.temperature": func(mb *builder, at pcommon.Timestamp, o *observation, with options) {
		mb.RecordHwTemperatureDataPoint(at, o.value, metadata.MapAttributeHwSensorLocation[o.part], with...)
	},
}

// xidCode is the part of gpu.xid.errors: a number in decimal.
func xidCode(part string) int64 {
	code, err := strconv.ParseInt(part, 10, 64)
	if err != nil {
		return 0
	}
	return code
}
