import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'

export interface Series {
  label: string
  /** A value for each time; null where there is none. */
  values: (number | null)[]
  /** Bars instead of a line. */
  bars?: boolean
}

interface Props {
  title: string
  /** Seconds since 1970. */
  times: number[]
  range: [number, number]
  series: Series[]
  format: (n: number) => string
}

// Lines differ by colour and by pattern.
const patterns = [[], [6, 3], [2, 2], [10, 3, 2, 3]]
const colours = ['--series-1', '--series-2', '--series-3', '--series-4']

/** A chart on the time axis that all charts of a page share, and with it the cursor. */
export function Chart({ title, times, range, series, format }: Props) {
  const box = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | null>(null)
  const shape = series.map((s) => `${s.label} ${s.bars}`).join('\n')
  const props = useRef({ range, series })
  props.current = { range, series }
  const data = [times, ...series.map((s) => s.values)] as uPlot.AlignedData
  const newest = useRef(data)
  newest.current = data

  useEffect(() => {
    const parent = box.current
    if (!parent) return
    const draw = () => {
      plot.current?.destroy()
      plot.current = new uPlot(options(parent, () => props.current.range, props.current.series, format), newest.current, parent)
    }
    draw()
    const size = new ResizeObserver(() => plot.current?.setSize({ width: parent.clientWidth, height }))
    size.observe(parent)
    const scheme = matchMedia('(prefers-color-scheme: dark)')
    scheme.addEventListener('change', draw)
    addEventListener('theme', draw)
    return () => {
      size.disconnect()
      scheme.removeEventListener('change', draw)
      removeEventListener('theme', draw)
      plot.current?.destroy()
      plot.current = null
    }
  }, [shape, format])
  useEffect(() => plot.current?.setData(newest.current), [data])

  const summary = series.map((s) => {
    const known = s.values.filter((v) => v !== null)
    return known.length > 0 ? `${s.label}: at most ${format(Math.max(...known))}, last ${format(known.at(-1)!)}` : `${s.label}: none`
  }).join('; ')
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      <div ref={box} role="img" aria-label={`${title}. ${summary}`} />
    </figure>
  )
}

const height = 130

// Steps of an axis that make short labels, of decimal numbers and of bytes.
const decimal = Array.from({ length: 16 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** (i - 3))).flat()
const binary = Array.from({ length: 5 }, (_, i) => [1, 2, 4, 8, 16, 32, 64, 128, 256, 512].map((n) => n * 1024 ** i)).flat()

/** The values that no line reaches, as there is none beside them. */
function alone(plot: uPlot, series: number): number[] {
  const values = plot.data[series] ?? []
  const is = (i: number) => values[i] !== null && values[i] !== undefined
  return Array.from(values.keys()).filter((i) => is(i) && !is(i - 1) && !is(i + 1))
}

function options(parent: HTMLElement, range: () => [number, number], series: Series[], format: (n: number) => string): uPlot.Options {
  const style = getComputedStyle(document.documentElement)
  const colour = (name: string) => style.getPropertyValue(name).trim()
  const incrs = format(1024 ** 2).includes('MiB') ? binary : decimal
  const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { stroke: colour('--line'), width: 1 } }
  return {
    width: parent.clientWidth,
    height,
    cursor: { y: false, sync: { key: 'time' }, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { time: true, range: () => range() },
      y: { range: (_u, _min, max) => [0, max > 0 ? max * 1.1 : 1] },
    },
    legend: { live: true },
    axes: [
      { ...axis, values: '{HH}:{mm}:{ss}', space: 70, size: 30 },
      { ...axis, size: 84, space: 28, incrs, values: (_u, splits) => splits.map((v) => format(v)) },
    ],
    series: [
      { value: '{HH}:{mm}:{ss}', label: 'Time' },
      ...series.map((s, i): uPlot.Series => ({
        label: s.label,
        stroke: colour(colours[i % colours.length]!),
        fill: s.bars ? colour(colours[i % colours.length]!) : undefined,
        width: s.bars ? 0 : 2,
        dash: patterns[i % patterns.length],
        paths: s.bars ? uPlot.paths.bars?.({ size: [0.8, 12] }) : undefined,
        points: s.bars ? { show: false } : { show: true, size: 5, filter: alone },
        value: (_u, v: number | null) => (v === null ? '–' : format(v)),
      })),
    ],
  }
}
