"""A finished run in the browser: `zoo-demo run=DIR` opens a page whose widgets follow from the run's data.

`command` loads the run and serves the page, `pages` says which one it is, and `images`, `tables`, `plane`, `texts` and
`sequences` have them: functions from what stands in widgets to rows and from answers to what is shown, and after them
the page itself. Gradio is imported where a page is built and nowhere else.
"""
