// Looks at the page as a person would: browse.mjs SCENARIO URL. testbed/web runs it against a collector. It fails on whatever the
// browser finds wrong: errors in the console, exceptions, what the policy of the page forbids, and replies that are no success.
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { scenarios } from './scenarios.mjs'

const [name, url] = process.argv.slice(2)
const scenario = scenarios[name]
assert.ok(scenario, `scenario ${name} is none of ${Object.keys(scenarios).join(', ')}`)

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-dev-shm-usage'] })
const problems = []

/** A page whose troubles count; expected are texts of those that a scenario makes on purpose. */
async function open(to = url, options = {}, expected = []) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 860 }, timezoneId: 'UTC', ...options })
  context.setDefaultTimeout(15_000)
  const page = await context.newPage()
  const tell = (text) => { if (!expected.some((e) => text.includes(e))) problems.push(text) }
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) tell(`${message.type()} in the console: ${message.text()}`) })
  page.on('pageerror', (error) => tell(`exception: ${error.stack}`))
  page.on('response', (response) => { if (response.status() >= 400) tell(`${response.status()} for ${response.url()}`) })
  page.on('request', (request) => { if (!request.url().startsWith(new URL(url).origin)) tell(`asked another host: ${request.url()}`) })
  await page.goto(to)
  return page
}

async function shot(page, file) {
  if (!process.env.SCREENSHOTS) return
  mkdirSync(process.env.SCREENSHOTS, { recursive: true })
  await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}-${file}.png`) })
}

/** Text that differs too little from what is behind it (WCAG 2.2, 1.4.3), and content that is wider than the window. */
async function checkLooks(page, where) {
  const bad = await page.evaluate(() => {
    const parse = (c) => (c.match(/[\d.]+/g) ?? []).map(Number)
    const over = (top, under) => { const a = top[3] ?? 1; return [0, 1, 2].map((i) => top[i] * a + under[i] * (1 - a)) }
    const light = (c) => { const [r, g, b] = c.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
    const behind = (element) => {
      const layers = []
      for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor))
      return layers.reverse().reduce((under, top) => (top.length ? over(top, under) : under), [255, 255, 255])
    }
    const found = []
    for (const e of document.querySelectorAll('body *:not(svg *):not(option):not(script)')) {
      const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())
      if (!own || !e.checkVisibility() || e.disabled) continue
      const [a, b] = [light(over(parse(getComputedStyle(e).color), behind(e))), light(behind(e))].sort((x, y) => y - x)
      if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${e.tagName} "${e.textContent.trim().slice(0, 40)}" has a contrast of ${((a + 0.05) / (b + 0.05)).toFixed(2)}`)
    }
    const wide = document.documentElement.scrollWidth - innerWidth
    if (wide > 0) found.push(`the page is ${wide} px wider than the window`)
    for (const e of document.querySelectorAll('button, a, input, select')) {
      if (e.checkVisibility() && !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.title)) found.push(`${e.outerHTML.slice(0, 80)} has no name`)
    }
    return found
  })
  for (const text of bad) problems.push(`${where}: ${text}`)
}

try {
  await scenario({ open, shot, checkLooks, url })
} catch (error) {
  problems.push(error.stack)
  for (const [i, page] of browser.contexts().flatMap((c) => c.pages()).entries()) await shot(page, `failed-${i}`)
} finally {
  await browser.close()
}
for (const problem of problems) console.error(problem)
process.exitCode = problems.length > 0 ? 1 : 0
