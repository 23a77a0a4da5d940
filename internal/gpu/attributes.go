package gpu

// Attributes of data points, or of their resource. The hw ones are OpenTelemetry's semantic conventions for hardware (development).
const (
	// AttrID is the UUID of the GPU or MIG instance, as NVML gives it: GPU-... or MIG-...
	AttrID = "hw.id"
	// AttrType is TypeGPU.
	AttrType = "hw.type"
	// AttrParent is the UUID of the GPU that a MIG instance is of.
	AttrParent = "hw.parent"
	// AttrModel is NVIDIA H100 80GB HBM3, say. AttrName, which is for people, stands in for it where it is not there.
	AttrModel  = "hw.model"
	AttrName   = "hw.name"
	AttrVendor = "hw.vendor"
	// AttrIndex is NVML's index of the GPU, which may be another one after a restart of the node.
	AttrIndex = "gpu.index"
	// AttrPCIAddress is domain:bus:device.function.
	AttrPCIAddress = "gpu.pci.bdf"
	// AttrMIGProfile is 1g.10gb, say.
	AttrMIGProfile = "gpu.mig.profile"
	// AttrSharing is how containers share the device, if they do. Allocations tell which do, so no series is told apart by it.
	AttrSharing = "gpu.sharing.strategy"
)

// TypeGPU is the AttrType of GPUs.
const TypeGPU = "gpu"

// Prefixes of names of metrics that are of GPUs, whatever their attributes say.
const (
	prefixOwn         = "gpu."
	prefixConventions = "hw.gpu."
)

// MetricAllocation is 1 for each container that a device is allocated to. Its data points of one device have the time of the scrape
// that all of them are of, which is that of the device's other metrics too: by it a device's metrics find their container.
const MetricAllocation = "gpu.allocation"

// AttrReplica is of an allocation: which share of a device it is, where the device is given by shares.
const AttrReplica = "gpu.allocation.replica"

// Metrics of a device that `orb8 gpu` shows. Ratios are from 0 to 1.
const (
	// MetricUtilization is a ratio, by AttrTask.
	MetricUtilization = "hw.gpu.utilization"
	// MetricSMActivity is the ratio of the time in which a streaming multiprocessor had a warp, over all of them.
	MetricSMActivity = "gpu.sm.activity"
	// MetricMemoryUsage and MetricMemoryLimit are in bytes.
	MetricMemoryUsage = "hw.gpu.memory.usage"
	MetricMemoryLimit = "hw.gpu.memory.limit"
	// MetricPower and MetricPowerLimit are in watts, MetricEnergy is a counter of joules.
	MetricPower      = "hw.power"
	MetricPowerLimit = "gpu.power.limit"
	MetricEnergy     = "hw.energy"
	// MetricTemperature is in degrees Celsius, by AttrSensor.
	MetricTemperature = "hw.temperature"
	// MetricXIDErrors counts errors that the driver reports, by code.
	MetricXIDErrors = "gpu.xid.errors"
)

// Metrics that are measured for a container's processes on a device.
const (
	// MetricProcessMemory is in bytes.
	MetricProcessMemory = "gpu.process.memory.usage"
	// MetricProcessUtilization is a ratio, by AttrEngine.
	MetricProcessUtilization = "gpu.process.utilization"
)

// Attributes of metrics, and the value that means the GPU as such.
const (
	AttrTask    = "hw.gpu.task"
	TaskGeneral = "general"
	AttrSensor  = "hw.sensor_location"
	SensorGPU   = "gpu"
	// AttrEngine is the part of a GPU that a process used: sm, mem, enc or dec.
	AttrEngine = "gpu.engine"
	EngineSM   = "sm"
)
