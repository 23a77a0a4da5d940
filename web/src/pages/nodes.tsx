import type { ComponentChildren } from 'preact'
import { call, num, seconds } from '../api'
import { useAnswer } from '../ask'
import { age, bytes, count, instant, percent, when } from '../format'
import type { GpuStatusJson, LossJson, NodeStatusJson, ProbeCostJson, StoreStatusJson } from '../gen/orb8/v1/orb8_pb'
import { Empty, Failure } from '../notices'
import { useRange } from '../range'
import { type Column, Table } from '../table'
import { follow, linkTo } from '../url'

export function NodesPage() {
  const range = useRange()
  const answer = useAnswer('status', range.until.getTime(), (signal) => call('GetStatus', {}, signal))
  const nodes = answer.data?.nodes ?? []
  const missing = nodes.filter((n) => n.missing).length
  return (
    <>
      <Failure error={answer.error} />
      {missing > 0 && (
        <div class="notice warning" role="status">
          <span aria-hidden="true">▲</span> <p>{missing} of {nodes.length} nodes {missing === 1 ? 'has' : 'have'} not reported for three intervals.</p>
        </div>
      )}
      {answer.data && (nodes.length === 0
        ? <Empty what="nodes" />
        : <Table label="Nodes" columns={columns} rows={nodes} id={(n) => n.node ?? ''} details={(n) => <Details node={n} />} />)}
      {answer.data && <Store store={answer.data.store ?? {}} version={answer.data.version ?? ''} />}
      {answer.loading && !answer.data && <p class="loading">Asking…</p>}
    </>
  )
}

const ago = (iso: string | undefined) => (iso ? `${age((Date.now() - Date.parse(iso)) / 1000)} ago` : '-')

function lossOf(...all: (LossJson | undefined)[]): string {
  const sum = (of: (l: LossJson) => string | undefined) => all.reduce((n, l) => n + num(l && of(l)), 0)
  return [
    sum((l) => l.packets) > 0 && `${count(sum((l) => l.packets))} packets`,
    sum((l) => l.calls) > 0 && `${count(sum((l) => l.calls))} calls`,
    sum((l) => l.events) > 0 && `${count(sum((l) => l.events))} events`,
  ].filter(Boolean).join(', ')
}

function unavailable(n: NodeStatusJson): [string, string][] {
  return Object.entries({ ...n.network?.unavailable, ...n.syscalls?.unavailable })
}

// unwell are the sources of GPUs that failed, or do not tell everything.
function unwell(n: NodeStatusJson): number {
  return (n.gpu?.sources ?? []).filter((s) => s.state === 'failed' || s.state === 'partial').length
}

function gpuTotal(gpu: GpuStatusJson): number {
  return (gpu.models ?? []).reduce((n, m) => n + (m.gpus ?? 0), 0)
}

const columns: Column<NodeStatusJson>[] = [
  { key: 'node', title: 'Node', cell: (n) => n.node },
  {
    key: 'seen', title: 'Seen',
    cell: (n) => <span class={n.missing ? 'bad' : undefined} title={n.lastSeen}>{n.missing ? '✕ ' : '✓ '}{ago(n.lastSeen)}</span>,
  },
  { key: 'packets', title: 'Packets/s', right: true, cell: (n) => (n.network ? count(n.network.packetsPerSecond as number ?? 0) : '–') },
  { key: 'bytes', title: 'Bytes/s', right: true, cell: (n) => (n.network ? bytes(n.network.bytesPerSecond as number ?? 0) : '–') },
  { key: 'calls', title: 'Calls/s', right: true, wide: true, cell: (n) => (n.syscalls ? count(n.syscalls.callsPerSecond as number ?? 0) : '–') },
  { key: 'flows', title: 'Live flows', right: true, wide: true, cell: (n) => (n.network ? count(num(n.network.liveFlows)) : '–') },
  { key: 'gpus', title: 'GPUs', right: true, wide: true, cell: (n) => (n.gpu ? count(gpuTotal(n.gpu)) : '–') },
  { key: 'lost', title: 'Lost since start', cell: (n) => {
    const lost = lossOf(n.network?.lost, n.syscalls?.lost)
    return <span class={lost ? 'warning' : undefined}>{lost ? `▲ ${lost}` : 'nothing'}</span>
  } },
  { key: 'version', title: 'Agent', wide: true, cell: (n) => n.version },
  { key: 'missing', title: 'Features', cell: (n) => {
    const missing = unavailable(n).length + unwell(n)
    const conflicts = n.gpu?.conflicts?.length ?? 0
    if (missing + conflicts === 0) return 'all'
    return (
      <span class="warning">
        ▲ {[missing > 0 && `${missing} unavailable`, conflicts > 0 && `${conflicts} GPU ${conflicts === 1 ? 'conflict' : 'conflicts'}`].filter(Boolean).join(', ')}
      </span>
    )
  } },
]

function Details({ node: n }: { node: NodeStatusJson }) {
  const { network, syscalls } = n
  const missing = unavailable(n)
  return (
    <div class="cards">
      <Card title="Agent" rows={[
        ['Version', n.version], ['Kernel', n.kernel], ['Started', `${when(n.started)} (${ago(n.started)})`], ['Last seen', instant(n.lastSeen)],
      ]}>
        <p class="actions"><a class="button" href={linkTo('flows', { node: n.node ?? '' })} onClick={follow}>Flows it saw</a></p>
      </Card>
      {network && (
        <Card title="Network" rows={[
          ['Attached', `${network.attachMode ?? ''}, ${network.attachPoints ?? 0} hooks`],
          ['Counted', `${count(num(network.packets))} packets, ${bytes(num(network.bytes))}`],
          ['Lost', lossOf(network.lost) || 'nothing'], ['Not parsed', `${count(num(network.unparsedPackets))} packets`],
          ['Flow table', `${count(num(network.flowTableEntries))} of ${count(num(network.flowTableSize))}`],
          ['Ring buffer', `${percent(network.ringBufferUtilization as number ?? 0)} of ${bytes(num(network.ringBufferBytes))}`],
        ]} />
      )}
      {network?.drops && network.drops.length > 0 && (
        <Card title="Dropped by the kernel" rows={network.drops.slice(0, 8).map((d) => [d.reason ?? '', `${count(num(d.packets))} packets`])} />
      )}
      {syscalls && (
        <Card title="System calls" rows={[
          ['Counted', count(num(syscalls.calls))], ['Lost', lossOf(syscalls.lost) || 'nothing'], ['Cgroups', count(num(syscalls.cgroups))],
          ['Latency', syscalls.latency ? 'measured' : 'not measured'],
          ['Ring buffer', `${percent(syscalls.ringBufferUtilization as number ?? 0)} of ${bytes(num(syscalls.ringBufferBytes))}`],
        ]} />
      )}
      {n.gpu && <Gpus gpu={n.gpu} />}
      <Probes all={[...(network?.probes ?? []), ...(syscalls?.probes ?? [])]} />
      {missing.length > 0 && <Card title="Unavailable" rows={missing} />}
    </div>
  )
}

// What GPUs there are, by whom that is known, and what two disagree about.
function Gpus({ gpu }: { gpu: GpuStatusJson }) {
  const failed = num(gpu.failedScrapes)
  return (
    <>
      <Card title="GPUs" rows={[
        ...(gpu.models ?? []).map((m): [string, string] => [m.model || 'Model not known', count(m.gpus ?? 0)]),
        ...(gpuTotal(gpu) === 0 ? [['GPUs', 'none that a source sees'] as [string, string]] : []),
        ['MIG instances', gpu.migInstances ? count(gpu.migInstances) : undefined],
        ['Scrape', `${Math.round(seconds(gpu.scrapeTime) * 1e4) / 10} ms every ${seconds(gpu.interval)} s`],
        ['Not whole', failed > 0 ? `${count(failed)} of ${count(num(gpu.scrapes))} scrapes` : undefined],
        ['Lost', num(gpu.lostEvents) > 0 ? `${count(num(gpu.lostEvents))} events` : undefined],
      ]} />
      <Card title="Sources of GPUs" rows={(gpu.sources ?? []).map((s) => [s.name ?? '', s.reason ? `${s.state}: ${s.reason}` : s.state])} />
      {gpu.conflicts && gpu.conflicts.length > 0 && (
        <Card title="Conflicts about GPUs" rows={gpu.conflicts.map((c) => [
          c.device ?? '', `${c.about}: ${c.first || 'none'} is believed, ${c.other} is said too, since ${when(c.since)}`,
        ])} />
      )}
    </>
  )
}

function Probes({ all }: { all: ProbeCostJson[] }) {
  const ran = all.filter((p) => num(p.runs) > 0)
  if (ran.length === 0) return null
  return <Card title="Cost of probes" rows={ran.map((p) => [p.program ?? '', `${Math.round((seconds(p.runTime) / num(p.runs)) * 1e9)} ns a run, ${count(num(p.runs))} runs`])} />
}

function Store({ store, version }: { store: StoreStatusJson; version: string }) {
  const kept = num(store.maxBytes) > 0 // by the collector itself, and not a log engine
  return (
    <section class="cards store">
      <Card title="Collector" rows={[
        ['Version', version], ['Store', store.backend],
        ['Records', kept ? count(num(store.records)) : `kept by ${store.backend}, which knows how many they are`],
        ['Size', kept ? `${bytes(num(store.bytes))} of ${bytes(num(store.maxBytes))}${num(store.headBytes) > 0 ? ` in files, ${bytes(num(store.headBytes))} in memory` : ''}` : undefined],
        [kept ? 'Oldest' : 'Queries since', store.oldest && `${when(store.oldest)} (${ago(store.oldest)})`],
        ['Dropped early', !kept ? undefined : num(store.evictedRecords) > 0 ? `${count(num(store.evictedRecords))} records` : 'nothing'],
        ['Subscribers', `${store.subscribers ?? 0}, who lost ${count(num(store.subscriberDrops))} events`],
      ]} />
    </section>
  )
}

interface CardProps {
  title: string
  rows: [string, string | undefined][]
  children?: ComponentChildren
}

export function Card({ title, rows, children }: CardProps) {
  return (
    <section>
      <h3>{title}</h3>
      <dl>{rows.filter(([, v]) => v).map(([k, v]) => <div key={k}><dt>{k}</dt><dd>{v}</dd></div>)}</dl>
      {children}
    </section>
  )
}
