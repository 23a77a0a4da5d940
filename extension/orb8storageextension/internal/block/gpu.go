package block

import "github.com/orb8/orb8/internal/gpu"

// GPURow is a sample of a GPU.
type GPURow struct {
	Time int64 `parquet:"time,timestamp(nanosecond),delta"`
	// Start is 0 where it is not known when a counter began, and of levels.
	Start      int64   `parquet:"start,timestamp(nanosecond),delta"`
	Node       string  `parquet:"node,dict"`
	Device     string  `parquet:"device,dict"`
	Parent     string  `parquet:"parent,dict"`
	Index      uint32  `parquet:"index"`
	Model      string  `parquet:"model,dict"`
	PCIAddress string  `parquet:"pci_address,dict"`
	MIGProfile string  `parquet:"mig_profile,dict"`
	Container  who     `parquet:"container"`
	Metric     string  `parquet:"metric,dict"`
	Unit       string  `parquet:"unit,dict"`
	Attributes string  `parquet:"attributes,dict"`
	Counter    bool    `parquet:"counter"`
	Value      float64 `parquet:"value"`
}

// GPURowOf returns the row of a sample.
func GPURowOf(s *gpu.Sample) GPURow {
	row := GPURow{
		Time: s.Time.UnixNano(), Node: s.Node, Device: s.Device.ID, Parent: s.Device.Parent, Index: s.Device.Index, Model: s.Device.Model,
		PCIAddress: s.Device.PCIAddress, MIGProfile: s.Device.MIGProfile, Container: whoOf(&s.Identity), Metric: s.Metric, Unit: s.Unit,
		Attributes: s.Attributes, Counter: s.Counter, Value: s.Value,
	}
	if !s.Start.IsZero() {
		row.Start = s.Start.UnixNano()
	}
	return row
}
