import { useMemo, useState } from 'preact/hooks'
import { call, num } from '../api'
import { useAnswer } from '../ask'
import { bytes, count } from '../format'
import { Coverage, Empty, Failure } from '../notices'
import { bounds, timeOf, useRange } from '../range'
import { type Column, Table } from '../table'
import { type Changes, change, follow, go, usePlace } from '../url'

interface Row {
  name: string
  kind: string
  link: Changes
  sent: number
  received: number
  calls: number
}

const most = 2000
const shown = 300

/** Who there is: pods where there is Kubernetes, containers and cgroups elsewhere. */
export function Subjects() {
  const { params } = usePlace()
  const range = useRange()
  const [search, setSearch] = useState('')
  const answer = useAnswer(`subjects ${range.span}`, timeOf(range), async (signal) => {
    const ends = ['source', 'destination'].map((end) => call('Aggregate', {
      ...bounds(range), signal: 'SIGNAL_FLOWS', by: [`${end}.pod`, `${end}.container`, `${end}.cgroup`], measures: ['bytes'], top: most,
    }, signal))
    const calls = call('Aggregate', {
      ...bounds(range), signal: 'SIGNAL_SYSCALLS', by: ['pod', 'container', 'cgroup'], measures: ['calls'], top: most,
    }, signal)
    return Promise.all([...ends, calls])
  })
  const rows = useMemo(() => {
    const all = new Map<string, Row>()
    const [sent, received, calls] = answer.data ?? []
    const add = (pod: string, container: string, cgroup: string, to: 'sent' | 'received' | 'calls', n: number) => {
      const [name, kind, link] = pod ? [pod, 'pod', { pod }] as const
        : container ? [container, 'container', { container }] as const : [cgroup, 'cgroup', { cgroup }] as const
      if (!name) return
      const key = `${kind} ${name}`
      const row = all.get(key) ?? { name, kind, link, sent: 0, received: 0, calls: 0 }
      row[to] += n
      all.set(key, row)
    }
    for (const g of sent?.groups ?? []) add(g.by?.[0] ?? '', g.by?.[1] ?? '', g.by?.[2] ?? '', 'sent', num(g.values?.[0]))
    for (const g of received?.groups ?? []) add(g.by?.[0] ?? '', g.by?.[1] ?? '', g.by?.[2] ?? '', 'received', num(g.values?.[0]))
    for (const g of calls?.groups ?? []) add(g.by?.[0] ?? '', g.by?.[1] ?? '', g.by?.[2] ?? '', 'calls', num(g.values?.[0]))
    return [...all.values()].sort((a, b) => b.sent + b.received - a.sent - a.received || b.calls - a.calls)
  }, [answer.data])
  const found = rows.filter((r) => r.name.toLowerCase().includes(search.toLowerCase()))
  return (
    <>
      <div class="filters">
        <form onSubmit={(event) => {
          event.preventDefault()
          if (found[0]) go(change(found[0].link))
        }}>
          <input data-search aria-label="Search" placeholder="search by name" value={search} onInput={(e) => setSearch(e.currentTarget.value)} />
        </form>
      </div>
      <Failure error={answer.error} />
      <Coverage told={answer.data?.find((a) => a.truncated) ?? answer.data?.[0]} of="groups" shown={most} />
      {answer.data && (rows.length === 0
        ? <Empty what="pods, containers or cgroups" />
        : (
          <>
            <p role="status" class="pager">{count(found.length)} found{found.length > shown ? `, the ${shown} with the most traffic are shown` : ''}</p>
            <Table
              label="Pods, containers and cgroups" columns={columns} rows={found.slice(0, shown)} id={(r) => `${r.kind} ${r.name}`}
              sort={params.get('sort') ?? ''} onSort={(sort) => go(change({ sort }), true)}
            />
          </>
        ))}
      {answer.loading && !answer.data && <p class="loading">Asking…</p>}
    </>
  )
}

const columns: Column<Row>[] = [
  { key: 'name', title: 'Name', order: (r) => r.name, cell: (r) => <a href={change({ ...r.link, sort: null })} onClick={follow}>{r.name}</a> },
  { key: 'kind', title: 'Kind', order: (r) => r.kind, cell: (r) => r.kind },
  { key: 'sent', title: 'Sent', right: true, order: (r) => r.sent, cell: (r) => bytes(r.sent) },
  { key: 'received', title: 'Received', right: true, order: (r) => r.received, cell: (r) => bytes(r.received) },
  { key: 'calls', title: 'System calls', right: true, order: (r) => r.calls, cell: (r) => count(r.calls) },
]
