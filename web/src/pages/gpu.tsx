import { along, type ChartProps } from '../axis'
import { Chart, type Series } from '../chart'
import { bytes, count, percent } from '../format'
import type { GpuSeriesJson } from '../gen/orb8/v1/orb8_pb'

interface Panel {
  title: string
  /** Those that are shown, each with what it says in the legend. */
  metrics: Record<string, string>
  format: (n: number) => string
  /** A counter: bars of what it grew by, 0 where it did not. */
  events?: boolean
}

const panels: Panel[] = [
  {
    title: 'GPU utilization', format: percent,
    metrics: { 'hw.gpu.utilization': '', 'gpu.sm.activity': 'SM activity', 'gpu.process.utilization': 'own processes' },
  },
  { title: 'GPU memory', format: bytes, metrics: { 'hw.gpu.memory.usage': '', 'gpu.process.memory.usage': 'own processes' } },
  { title: 'GPU power', format: (n) => `${count(Math.round(n))} W`, metrics: { 'hw.power': '' } },
  { title: 'GPU errors (XID)', format: count, metrics: { 'gpu.xid.errors': 'XID' }, events: true },
]

/** What the charts are made of. */
export const gpuMetrics = panels.flatMap((p) => Object.keys(p.metrics))

/** Attributes whose value means the GPU as such, and that of an event, which tells its kind. */
const asSuch: Record<string, string> = { 'hw.gpu.task': 'general', 'gpu.engine': 'sm' }
const kind = 'gpu.xid.code'

const isAsSuch = (s: GpuSeriesJson) => Object.entries(s.attributes ?? {}).every(([name, value]) => (asSuch[name] ?? value) === value)

/** As many lines as a chart has colours and patterns for, and then some. */
const mostLines = 8

/** A chart for each thing that GPUs were measured for: how busy, memory, power, errors. */
export function GpuCharts({ all, axis, range }: ChartProps & { all: GpuSeriesJson[] }) {
  return (
    <>
      {panels.map((panel) => {
        const series = Object.keys(panel.metrics).flatMap((metric) => all.filter((s) => s.metric === metric && isAsSuch(s)))
        if (series.length === 0) return null
        const left = series.length - mostLines
        return (
          <Chart
            key={panel.title} title={left > 0 ? `${panel.title}, ${mostLines} of ${series.length}` : panel.title} times={axis.times} range={range}
            format={panel.format} series={series.slice(0, mostLines).map((s) => line(panel, s, { axis, range }))}
          />
        )
      })}
    </>
  )
}

function line(panel: Panel, s: GpuSeriesJson, { axis, range }: ChartProps): Series {
  const values = new Map((s.points ?? []).map((p) => [Date.parse(p.start ?? '') / 1000, Number(p.value ?? 0)]))
  // Where there was no sample there is no level; where no event was told of, there was none.
  const unknown = panel.events ? undefined : new Date(range[1] * 1000).toISOString()
  const device = s.device?.parent ? `MIG ${s.device.migProfile ?? ''} of GPU ${s.device.index ?? 0}` : `GPU ${s.device?.index ?? 0}`
  return {
    label: [device, panel.metrics[s.metric ?? ''], s.attributes?.[kind]].filter(Boolean).join(' '),
    values: along(axis, values, unknown), ...(panel.events && { bars: true }),
  }
}
