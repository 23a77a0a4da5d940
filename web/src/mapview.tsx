import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { bytes } from './format'
import { type Edge, healthOf, type Node, total } from './graph'
import { type Box, curve, nodeHeight, nodeWidth, place } from './layout'
import { follow } from './url'

interface Props {
  edges: Edge[]
  /** Id of a node or an edge, or empty. */
  chosen: string
  onChoose: (id: string) => void
  /** The URL that shows a group alone; null where there is none. */
  linkOf: (group: string) => string | null
}

const signs = { good: '', warning: '▲', bad: '✕' }
const shapes: Record<Node['kind'], string> = { workload: '■', service: '◆', container: '▣', unit: '▤', process: '●', name: '◎', unknown: '○' }

/** The map: drawn once for as long as the same nodes talk to each other, while widths and colours follow the traffic. */
export function MapView({ edges, chosen, onChoose, linkOf }: Props) {
  const topology = edges.map((e) => `${e.a.id}\n${e.b.id}\n${e.directed}`).sort().join('\n\n')
  const layout = useMemo(() => place(edges), [topology])
  const svg = useRef<SVGSVGElement>(null)
  const [view, setView] = useState<Box>(layout.area)
  useEffect(() => setView(layout.area), [layout])
  const largest = Math.max(1, ...edges.map(total))
  const nodes = useMemo(() => {
    const all = [...new Map(edges.flatMap((e) => [e.a, e.b]).map((n) => [n.id, n])).values()]
    const at = (n: Node) => layout.nodes.get(n.id)
    return all.filter(at).sort((a, b) => at(a)!.x - at(b)!.x || at(a)!.y - at(b)!.y)
  }, [edges, layout])
  const near = new Set([chosen, ...edges.filter((e) => e.id === chosen || e.a.id === chosen || e.b.id === chosen).flatMap((e) => [e.id, e.a.id, e.b.id])])
  const something = near.size > 1
  const [stop, setStop] = useState('')
  const first = nodes.some((n) => n.id === stop) ? stop : (nodes[0]?.id ?? '')

  const zoom = (by: number, cx = view.x + view.width / 2, cy = view.y + view.height / 2) => setView((v) => ({
    x: cx - (cx - v.x) * by, y: cy - (cy - v.y) * by, width: v.width * by, height: v.height * by,
  }))
  const pan = useDrag(svg, view, setView)
  useWheel(svg, view, zoom)

  const onKey = (event: KeyboardEvent) => {
    const id = (event.target as Element).closest('[data-node]')?.getAttribute('data-node') ?? ''
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
    if (step && id) focusNode(svg.current, nearest(id, step as [number, number], layout.nodes))
    else if (event.key === 'Enter' || event.key === ' ') { if (id) onChoose(id === chosen ? '' : id) }
    else if (event.key === 'Escape') onChoose('')
    else if (event.key === '+' || event.key === '=') zoom(0.8)
    else if (event.key === '-') zoom(1.25)
    else if (event.key === '0') setView(layout.area)
    else return
    event.preventDefault()
    event.stopPropagation()
  }

  return (
    <div class="map">
      <svg
        ref={svg}
        viewBox={`${view.x} ${view.y} ${view.width} ${view.height}`}
        role="group"
        aria-label={`Service map: ${nodes.length} nodes, ${edges.length} connections. Arrow keys move between nodes, Enter chooses one.`}
        class={something ? 'choosing' : undefined}
        onKeyDown={onKey}
        {...pan}
        onClick={(event) => { if (event.target === svg.current) onChoose('') }}
      >
        <defs>
          {Object.keys(signs).map((health) => (
            <marker key={health} id={`arrow-${health}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">
              <path d="M0,0L8,4L0,8Z" class={`arrow ${health}`} />
            </marker>
          ))}
        </defs>
        {[...layout.groups].map(([name, box]) => (
          <g key={name} class="group">
            <rect {...box} rx="8" />
            <GroupTitle name={name} x={box.x + 12} y={box.y + 17} link={linkOf(name)} />
          </g>
        ))}
        {edges.map((e) => {
          const [from, to] = [layout.nodes.get(e.a.id), layout.nodes.get(e.b.id)]
          if (!from || !to) return null
          const { path, middle } = curve(from, to)
          const health = healthOf(e)
          const width = 1.2 + 8 * Math.sqrt(total(e) / largest)
          return (
            <g key={e.id} class={`edge ${near.has(e.id) ? 'near' : ''}`} onClick={() => onChoose(e.id)}>
              <title>{`${e.a.label} → ${e.b.label}: ${bytes(total(e))}`}</title>
              <path d={path} class="hit" />
              <path d={path} class={`edge-line ${health}`} stroke-width={width.toFixed(1)} marker-end={e.directed ? `url(#arrow-${health})` : undefined} />
              {health !== 'good' && (
                <g class={`sign ${health}`}>
                  <circle cx={middle.x} cy={middle.y} r="9" />
                  <text x={middle.x} y={middle.y + 4}>{signs[health]}</text>
                </g>
              )}
            </g>
          )
        })}
        {nodes.map((n) => {
          const at = layout.nodes.get(n.id)!
          return (
            <g
              key={n.id}
              data-node={n.id}
              class={`node ${near.has(n.id) ? 'near' : ''}`}
              role="button"
              aria-pressed={n.id === chosen}
              aria-label={`${n.kind} ${n.label} in ${n.group}, ${bytes(n.bytes)}`}
              tabIndex={n.id === first ? 0 : -1}
              onFocus={() => setStop(n.id)}
              onClick={() => onChoose(n.id === chosen ? '' : n.id)}
            >
              <title>{n.label}</title>
              <rect x={at.x} y={at.y} width={nodeWidth} height={nodeHeight} rx="5" />
              <text x={at.x + 9} y={at.y + 19} class="shape">{shapes[n.kind]}</text>
              <svg x={at.x + 25} y={at.y} width={nodeWidth - 30} height={nodeHeight}><text y="19">{shorten(n.label, 20)}</text></svg>
            </g>
          )
        })}
      </svg>
      <div class="zoom">
        <button type="button" aria-label="Nearer" onClick={() => zoom(0.8)}>+</button>
        <button type="button" aria-label="Farther" onClick={() => zoom(1.25)}>−</button>
        <button type="button" aria-label="All of it" onClick={() => setView(layout.area)}>⤢</button>
      </div>
    </div>
  )
}

function GroupTitle({ name, x, y, link }: { name: string; x: number; y: number; link: string | null }) {
  const text = <text x={x} y={y}>{shorten(name, 26)}</text>
  return link ? <a href={link} onClick={follow} aria-label={`Only ${name}`}>{text}</a> : text
}

/** Cuts a name in its middle: beginnings and ends differ most. */
function shorten(s: string, most: number): string {
  return s.length <= most ? s : `${s.slice(0, most / 2)}…${s.slice(s.length - most / 2 + 1)}`
}

function focusNode(svg: SVGSVGElement | null, id: string) {
  for (const node of svg?.querySelectorAll<SVGGElement>('[data-node]') ?? []) {
    if (node.dataset.node === id) node.focus()
  }
}

/** The node next to another in a direction; what lies aside counts as farther. */
function nearest(id: string, [dx, dy]: [number, number], boxes: Map<string, Box>): string {
  const from = boxes.get(id)
  let best = id
  let least = Infinity
  for (const [other, box] of from ? boxes : []) {
    const [x, y] = [box.x - from!.x, box.y - from!.y]
    const along = x * dx + y * dy
    const aside = Math.abs(x * dy) + Math.abs(y * dx)
    if (other === id || along <= 1) continue
    const distance = along + aside * 2
    if (distance < least) [best, least] = [other, distance]
  }
  return best
}

function useDrag(svg: { current: SVGSVGElement | null }, view: Box, setView: (v: Box) => void) {
  const from = useRef<{ x: number; y: number; view: Box } | null>(null)
  return {
    onPointerDown: (event: PointerEvent) => {
      if (event.button === 0 && !(event.target as Element).closest('[data-node], .edge')) from.current = { x: event.clientX, y: event.clientY, view }
    },
    onPointerMove: (event: PointerEvent) => {
      const width = svg.current?.clientWidth
      const height = svg.current?.clientHeight
      if (!from.current || !width || !height) return
      const { x, y, view: at } = from.current
      const scale = Math.max(at.width / width, at.height / height)
      setView({ ...at, x: at.x - (event.clientX - x) * scale, y: at.y - (event.clientY - y) * scale })
    },
    onPointerUp: () => { from.current = null },
    onPointerLeave: () => { from.current = null },
  }
}

/** With Ctrl, as on other maps: the wheel alone scrolls the page. */
function useWheel(svg: { current: SVGSVGElement | null }, view: Box, zoom: (by: number, x: number, y: number) => void) {
  const latest = useRef({ view, zoom })
  latest.current = { view, zoom }
  useEffect(() => {
    const element = svg.current
    const onWheel = (event: WheelEvent) => {
      if (!event.ctrlKey && !event.metaKey) return
      event.preventDefault()
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(element?.getScreenCTM()?.inverse())
      latest.current.zoom(event.deltaY > 0 ? 1.1 : 1 / 1.1, point.x, point.y)
    }
    element?.addEventListener('wheel', onWheel, { passive: false })
    return () => element?.removeEventListener('wheel', onWheel)
  }, [])
}
