import { useMemo } from 'preact/hooks'
import { ApiError, call, num, seconds } from '../api'
import { useAnswer } from '../ask'
import { along, axisOf, type ChartProps } from '../axis'
import { Chart, type Series } from '../chart'
import { unitOf } from '../endpoint'
import { bytes, count, enumName, when } from '../format'
import type {
  AggregateResponseJson, AnomalyJson, EndpointFilterJson, FlowFilterJson, GpuFilterJson, SyscallFilterJson,
} from '../gen/orb8/v1/orb8_pb'
import { Coverage, Empty, Failure } from '../notices'
import { bounds, stepOf, timeOf, useRange } from '../range'
import { type Column, Table } from '../table'
import { type Changes, follow, linkTo } from '../url'
import { GpuCharts, gpuMetrics } from './gpu'

export interface SubjectName {
  kind: 'pod' | 'workload' | 'container' | 'cgroup'
  name: string
}

export function subjectFrom(params: URLSearchParams): SubjectName | null {
  for (const kind of ['pod', 'workload', 'container', 'cgroup'] as const) {
    const name = params.get(kind)
    if (name) return { kind, name }
  }
  return null
}

interface Filters {
  end: EndpointFilterJson
  calls: SyscallFilterJson
  gpu: GpuFilterJson | null
  /** Of the flow table. */
  link: Changes
}

function filtersOf({ kind, name }: SubjectName): Filters {
  switch (kind) {
    case 'pod':
      return { end: { pods: [name] }, calls: { pods: [name] }, gpu: { pods: [name] }, link: { pod: name } }
    case 'workload':
      return { end: { workloads: [name] }, calls: { workloads: [name] }, gpu: null, link: { workload: name } }
    case 'container':
      return { end: { containers: [name] }, calls: { containers: [name] }, gpu: { containers: [name] }, link: { container: name } }
    case 'cgroup':
      return { end: { cgroups: [name] }, calls: { cgroups: [name] }, gpu: null, link: { cgroup: name } }
  }
}

const peerDimensions = ['pod', 'service', 'container', 'name', 'cgroup', 'process', 'address'] as const
const flowMeasures = ['bytes', 'packets', 'retransmits', 'errors']
const mostPeers = 500

/** Everything about one subject, on one time axis. */
export function Subject({ of }: { of: SubjectName }) {
  const range = useRange()
  const filters = filtersOf(of)
  const status = useAnswer('status', 0, (signal) => call('GetStatus', {}, signal))
  const step = stepOf(range, Math.max(0, ...(status.data?.nodes ?? []).map((n) => seconds(n.network?.interval ?? n.syscalls?.interval))))
  const axis = useMemo(() => axisOf(range, step), [range, step])
  const key = `${of.kind} ${of.name} ${range.span} ${step}`
  const time = timeOf(range)
  const within = { since: new Date(axis.times[0]! * 1000).toISOString(), until: range.until.toISOString() }
  const bucket = `${step}s`

  const traffic = useAnswer(`${key} traffic`, time, async (signal) => {
    const ask = (filter: FlowFilterJson) => call('Aggregate', { ...within, allow: [filter], measures: flowMeasures, bucket }, signal)
    return Promise.all([ask({ source: filters.end }), ask({ destination: filters.end })])
  })
  const peers = useAnswer(`${key} peers`, time, async (signal) => {
    const ask = (filter: FlowFilterJson, end: string) => call('Aggregate', {
      ...bounds(range), allow: [filter], by: peerDimensions.map((d) => `${end}.${d}`), measures: flowMeasures, top: mostPeers,
    }, signal)
    return Promise.all([ask({ source: filters.end }, 'destination'), ask({ destination: filters.end }, 'source')])
  })
  const calls = useAnswer(`${key} calls`, time, (signal) => call('Aggregate', {
    ...within, signal: 'SIGNAL_SYSCALLS', syscalls: [filters.calls], by: ['syscall'], measures: ['calls', 'errors'], top: 100, bucket,
  }, signal))
  const anomalies = useAnswer(`${key} anomalies`, time, (signal) => call('QueryAnomalies', {
    ...within, allow: [{ syscall: filters.calls }], limit: 200,
  }, signal))
  const gpu = useAnswer(`${key} gpu`, time, async (signal) => {
    if (!filters.gpu) return null
    try {
      return await call('QueryGpu', { ...within, allow: [{ ...filters.gpu, metrics: gpuMetrics }], step: bucket }, signal)
    } catch (error) {
      // A collector of before GPUs has none.
      if (error instanceof ApiError && error.code === 'unimplemented') return null
      throw error
    }
  })

  const answers = [traffic, peers, calls, anomalies, gpu]
  const error = answers.find((a) => a.error)?.error
  const told = [traffic.data?.[0], calls.data, anomalies.data].filter((t) => !!t)
  const xs: [number, number] = [axis.times[0]!, range.until.getTime() / 1000]
  const nothing = !answers.some((a) => a.loading) && num(traffic.data?.[0].matched) + num(traffic.data?.[1].matched) + num(calls.data?.matched) === 0
  return (
    <>
      <div class="title">
        <h1><span class="kind">{of.kind}</span> {of.name}</h1>
        <p class="actions">
          <a class="button" href={linkTo('flows', filters.link)} onClick={follow}>Flows</a>
          <a href={linkTo('pod')} onClick={follow}>All pods and containers</a>
        </p>
      </div>
      <Failure error={error} />
      {told.map((t, i) => <Coverage key={i} told={{ ...t, truncated: false, ...(i > 0 && { missingNodes: [], oldest: undefined, lost: { calls: t.lost?.calls, events: t.lost?.events } }) }} />)}
      {nothing && <Empty what="records" filtered={false} />}
      <div class="charts">
        {traffic.data && <TrafficCharts sent={traffic.data[0]} received={traffic.data[1]} axis={axis} range={xs} />}
        {calls.data && num(calls.data.matched) > 0 && <CallsChart calls={calls.data} axis={axis} range={xs} />}
        {anomalies.data && (anomalies.data.anomalies ?? []).length > 0 && <AnomaliesChart all={anomalies.data.anomalies ?? []} axis={axis} range={xs} />}
        <GpuCharts all={gpu.data?.series ?? []} axis={axis} range={xs} />
      </div>
      <div class="columns">
        {peers.data && <Peers answers={peers.data} />}
        {calls.data && <Calls answer={calls.data} />}
      </div>
      {anomalies.data && <Anomalies all={anomalies.data.anomalies ?? []} matched={num(anomalies.data.matched)} />}
    </>
  )
}

function buckets(answer: AggregateResponseJson, measure: number): Map<number, number> {
  return new Map((answer.total?.buckets ?? []).map((b) => [Date.parse(b.start ?? '') / 1000, num(b.values?.[measure])]))
}

const perSecond = (n: number) => `${bytes(n)}/s`
const rate = (n: number) => `${count(Math.round(n * 100) / 100)}/s`

function TrafficCharts({ sent, received, axis, range }: ChartProps & { sent: AggregateResponseJson; received: AggregateResponseJson }) {
  const series = (answer: AggregateResponseJson, measure: number, label: string): Series => ({
    label, values: along(axis, new Map([...buckets(answer, measure)].map(([t, v]) => [t, v / axis.step])), answer.oldest),
  })
  const both = (measure: number) => {
    const sum = buckets(sent, measure)
    for (const [t, v] of buckets(received, measure)) sum.set(t, (sum.get(t) ?? 0) + v)
    return along(axis, sum, sent.oldest)
  }
  return (
    <>
      <Chart title="Traffic" times={axis.times} range={range} format={perSecond} series={[series(sent, 0, 'sent'), series(received, 0, 'received')]} />
      <Chart
        title={`Trouble, in ${axis.step} s`} times={axis.times} range={range} format={count}
        series={[{ label: 'packets sent again', values: both(2), bars: true }, { label: 'connections that failed', values: both(3) }]}
      />
    </>
  )
}

function CallsChart({ calls, axis, range }: ChartProps & { calls: AggregateResponseJson }) {
  const series = (measure: number, label: string): Series => ({
    label, values: along(axis, new Map([...buckets(calls, measure)].map(([t, v]) => [t, v / axis.step])), calls.oldest),
  })
  const errors = num(calls.total?.values?.[1]) > 0 ? [series(1, 'errors')] : []
  return <Chart title="System calls" times={axis.times} range={range} format={rate} series={[series(0, 'calls'), ...errors]} />
}

function AnomaliesChart({ all, axis, range }: ChartProps & { all: AnomalyJson[] }) {
  const values = new Map<number, number>()
  for (const a of all) {
    const t = Math.floor(Date.parse(a.time ?? '') / 1000 / axis.step) * axis.step
    values.set(t, (values.get(t) ?? 0) + 1)
  }
  return <Chart title="Anomalies" times={axis.times} range={range} format={count} series={[{ label: 'anomalies', values: axis.times.map((t) => values.get(t) ?? 0), bars: true }]} />
}

interface Peer {
  name: string
  link: Changes | null
  sent: number
  received: number
  retransmits: number
  errors: number
}

function Peers({ answers }: { answers: AggregateResponseJson[] }) {
  const all = new Map<string, Peer>()
  answers.forEach((answer, back) => {
    for (const group of answer.groups ?? []) {
      const [pod = '', service = '', container = '', dns = '', cgroup = '', process = '', address = ''] = group.by ?? []
      const unit = unitOf(cgroup)
      const name = pod || service || container || dns || unit || process || address
      const [size = 0, , retransmits = 0, errors = 0] = (group.values ?? []).map(num)
      const peer = all.get(name) ?? { name, link: pod ? { pod } : container ? { container } : unit ? { cgroup } : null, sent: 0, received: 0, retransmits: 0, errors: 0 }
      peer[back ? 'received' : 'sent'] += size
      peer.retransmits += retransmits
      peer.errors += errors
      all.set(name, peer)
    }
  })
  const rows = [...all.values()].sort((a, b) => b.sent + b.received - a.sent - a.received)
  return (
    <section>
      <h2>Top peers</h2>
      {rows.length === 0 ? <p>Nobody.</p> : <Table label="Top peers" columns={peerColumns} rows={rows.slice(0, 15)} id={(p) => p.name} />}
      {rows.length > 15 && <p>and {count(rows.length - 15)}{answers.some((a) => a.truncated) ? ' or more' : ''} others</p>}
    </section>
  )
}

const peerColumns: Column<Peer>[] = [
  { key: 'name', title: 'Peer', cell: (p) => (p.link ? <a href={linkTo('pod', p.link)} onClick={follow}>{p.name}</a> : p.name) },
  { key: 'sent', title: 'Sent to it', right: true, cell: (p) => bytes(p.sent) },
  { key: 'received', title: 'Received', right: true, cell: (p) => bytes(p.received) },
  {
    key: 'trouble', title: 'Trouble',
    cell: (p) => (
      <span class={p.errors > 0 ? 'bad' : 'warning'}>
        {[p.errors > 0 && `✕ ${count(p.errors)} failed`, p.retransmits > 0 && `▲ ${count(p.retransmits)} sent again`].filter(Boolean).join(', ')}
      </span>
    ),
  },
]

interface Call {
  name: string
  calls: number
  errors: number
}

function Calls({ answer }: { answer: AggregateResponseJson }) {
  const rows: Call[] = (answer.groups ?? []).map((g) => ({ name: g.by?.[0] ?? '', calls: num(g.values?.[0]), errors: num(g.values?.[1]) }))
  return (
    <section>
      <h2>System calls</h2>
      {rows.length === 0 ? <p>None are known.</p> : <Table label="System calls" columns={callColumns} rows={rows.slice(0, 15)} id={(c) => c.name} />}
      {num(answer.matched) > 15 && <p>and {count(num(answer.matched) - 15)} others</p>}
    </section>
  )
}

const callColumns: Column<Call>[] = [
  { key: 'name', title: 'Call', cell: (c) => <code>{c.name}</code> },
  { key: 'calls', title: 'Calls', right: true, cell: (c) => count(c.calls) },
  { key: 'errors', title: 'Errors', right: true, cell: (c) => (c.errors > 0 ? count(c.errors) : '') },
]

const severities: Record<string, string> = { critical: '✕', warning: '▲', info: '·' }

function Anomalies({ all, matched }: { all: AnomalyJson[]; matched: number }) {
  if (all.length === 0) return null
  return (
    <section>
      <h2>Anomalies</h2>
      <Table label="Anomalies" columns={anomalyColumns} rows={all.slice(0, 50)} id={(a) => `${a.time} ${a.rule} ${a.name} ${a.message}`} />
      {matched > 50 && <p>and {count(matched - 50)} others</p>}
    </section>
  )
}

const anomalyColumns: Column<AnomalyJson>[] = [
  { key: 'time', title: 'Time', cell: (a) => <time dateTime={a.time}>{when(a.time)}</time> },
  {
    key: 'severity', title: 'Severity',
    cell: (a) => {
      const name = enumName(a.severity, 'SEVERITY')
      return <span class={{ critical: 'bad', warning: 'warning' }[name]}>{severities[name]} {name}</span>
    },
  },
  { key: 'rule', title: 'Rule', wide: true, cell: (a) => a.rule },
  { key: 'message', title: 'What', cell: (a) => a.message },
]
