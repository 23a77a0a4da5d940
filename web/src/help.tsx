import { useEffect, useRef } from 'preact/hooks'

const keys: [string, string][] = [
  ['?', 'this help'],
  ['g m, g f, g p, g n', 'go to the map, the flows, the pods, the nodes'],
  ['1 2 3 4', 'last 5 minutes, 15 minutes, hour, 6 hours'],
  ['l', 'live on and off'],
  ['/', 'filter or search'],
  ['d', 'light or dark'],
  ['Tab, arrows', 'move on the map, and from row to row in a table'],
  ['Enter', 'choose what is in focus; the details of a row'],
  ['+ - 0', 'on the map: nearer, farther, all of it'],
  ['Esc', 'let go of what was chosen'],
]

export function Help({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => dialog.current?.showModal(), [])
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="help-title">
      <h2 id="help-title">Keyboard shortcuts</h2>
      <dl class="keys">
        {keys.map(([key, what]) => <div key={key}><dt><kbd>{key}</kbd></dt><dd>{what}</dd></div>)}
      </dl>
      <p><a href="licenses.txt">Licenses</a> of what this page is made of.</p>
      <form method="dialog"><button type="submit">Close</button></form>
    </dialog>
  )
}
