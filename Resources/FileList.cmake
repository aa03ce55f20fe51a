# Made by Testing/make_file_lists.py
set(FORGETTABLESEG_RESOURCE_FILES
  Resources/Icons/ForgettableSeg.png
  Resources/Terminology/structures.json
  Resources/TextEmbeddings/README.md
  Resources/TextEmbeddings/minilm_l6_v2.npz
  Resources/UI/FineTunePanel.ui
  Resources/UI/ForgettableSeg.ui
  Resources/UI/ModelsPanel.ui
  Resources/UI/ReviewPanel.ui
  Resources/UI/SegmentPanel.ui
  Resources/UI/SetupPanel.ui
  Resources/requirements.txt
  )
